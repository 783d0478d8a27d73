// Reads commands in Redis's protocol, and answers GET and SET from one store: what the two servers by hand share.

const store = new Map();
const LF = 10;

/** The commands of one connection. Text is one character per byte. */
export class Commands {
  #rest = new Uint8Array(0);

  /** Returns the replies to the commands that are whole now. */
  answer(chunk) {
    let bytes = chunk;
    if (this.#rest.length > 0) {
      bytes = new Uint8Array(this.#rest.length + chunk.length);
      bytes.set(this.#rest);
      bytes.set(chunk, this.#rest.length);
    }
    let replies = "";
    let at = 0;
    for (let next; (next = readCommand(bytes, at)) !== null; at = next.end) replies += run(next.args);
    this.#rest = bytes.slice(at);
    return replies;
  }
}

/** Reads one array of bulk strings; null if it has not come whole. */
function readCommand(bytes, start) {
  const first = readNumber(bytes, start);
  if (first === null) return null;
  const args = [];
  let at = first.end;
  while (args.length < first.number) {
    const size = readNumber(bytes, at);
    if (size === null || size.end + size.number + 2 > bytes.length) return null;
    args.push(textOf(bytes, size.end, size.end + size.number));
    at = size.end + size.number + 2;
  }
  return { args, end: at };
}

/** Reads the number in a line such as `*2` or `$3`. */
function readNumber(bytes, start) {
  const end = bytes.indexOf(LF, start);
  if (end < 0) return null;
  let number = 0;
  for (let at = start + 1; at < end - 1; at++) number = number * 10 + bytes[at] - 48;
  return { number, end: end + 1 };
}

function textOf(bytes, from, to) {
  let text = "";
  for (let at = from; at < to; at++) text += String.fromCharCode(bytes[at]);
  return text;
}

function run([name, key, value]) {
  switch (name.toUpperCase()) {
    case "GET": {
      const found = store.get(key);
      return found === undefined ? "$-1\r\n" : `$${found.length}\r\n${found}\r\n`;
    }
    case "SET":
      store.set(key, value);
      return "+OK\r\n";
    case "PING":
      return "+PONG\r\n";
    default:
      return "-ERR unknown command\r\n";
  }
}
