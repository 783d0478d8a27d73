// What one writes first with `node:net`: each line comes back in upper case.
import { createServer } from "node:net";
import process from "node:process";

const server = createServer((socket) => {
  let rest = "";
  socket.on("data", (chunk) => {
    const lines = (rest + chunk).split("\n");
    rest = lines.pop();
    for (const line of lines) socket.write(line.toUpperCase() + "\n");
  });
});
server.listen(Number(process.argv[2] ?? 8080), "127.0.0.1", () => {
  console.log(`listening on 127.0.0.1:${server.address().port}`);
});
