import { assert, assertEquals } from "@std/assert";
import { COMMANDS, type Shell } from "../../../cli/flags/commands.ts";
import { completions } from "../../../cli/help/completions.ts";
import { flagName, SERVE } from "../../../cli/flags/flags.ts";
import { runCommand } from "../../kit/command.ts";
import { missingProgram } from "../../kit/foreign/foreign.ts";

/** Asks a shell for the completions of the last of these words. */
const ASK: Readonly<Record<Shell, (script: string, words: string[]) => Promise<string[]>>> = {
  async bash(script, words) {
    const call = `source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shouty; printf '%s\\n' "\${COMPREPLY[@]}"`;
    // Bash makes three words of --flag=value.
    const parts = words.flatMap((word) => /^--.*=/.test(word) ? word.split(/(=)/).filter((part) => part !== "") : word);
    return (await run("bash", "--norc", "-c", call, script, ...parts)).split("\n");
  },
  async fish(script, words) {
    const ask = `source ${script}; complete -C '${words.join(" ")}'`;
    const lines = (await run("fish", "--no-config", "-c", ask)).split("\n").map((line) => line.split("\t")[0]);
    // Fish repeats what is before the value.
    return lines.map((line) => line.replace(/^--[\w-]+=(?=.)/, ""));
  },
  // In zsh only its own editor completes: it runs in a terminal, and the test reads what the editor has made of the line.
  async zsh(script, words) {
    return [
      (await run("zsh", "-f", "-c", IN_ZSH, script, words.join(" "))).replace(/^.* /, "").replace(/^--.*=(?=.)/, ""),
    ];
  },
};

/** Types a line and a tab into a zsh in a terminal of its own, and prints the line as it is then. */
const IN_ZSH = `
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "autoload -Uz compinit; compinit -u -D; source $0; setopt no_always_last_prompt"
zpty -w shell 'show() { print -r -- "<"\\<$BUFFER">"\\>; BUFFER=; zle accept-line }; zle -N show; bindkey "^X" show'
zpty -w -n shell "$1"$'\\t\\C-X'
while zpty -r shell line; do
  if [[ $line == *'<<'*'>>'* ]]; then line=\${line#*<<}; print -r -- "\${line%%>>*}"; break; fi
done
zpty -d shell`;

async function run(program: string, ...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await new Deno.Command(program, { args, stdin: "null" }).output();
  const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  assertEquals([code, err], [0, ""]);
  return out.trimEnd();
}

/** Words, and what completes the last of them; `%` is a folder with one file. */
const CASES: [words: string, found: string[]][] = [
  ["shouty conn", ["connect"]],
  ["shouty --max-a", ["--max-age"]],
  ["shouty --port 1 --unix-m", ["--unix-mode"]],
  ["shouty --drain l", ["linger"]],
  ["shouty --drain=f", ["finish"]],
  ["shouty --tls-port o", ["off"]],
  ["shouty --workers a", ["auto"]],
  ["shouty --listen-fd s", ["systemd"]],
  ["shouty --tls-cert %/certif", ["%/certificate.pem"]],
  ["shouty connect --tls-s", ["--tls-server-name"]],
  ["shouty connect h:1 --tls-ca %/certif", ["%/certificate.pem"]],
  ["shouty completions f", ["fish"]],
  ["shouty completions --he", ["--help"]],
  ["shouty man --v", ["--version"]],
];

for (const shell of Object.keys(ASK) as Shell[]) {
  const missing = await missingProgram(shell, "--version");
  Deno.test({
    name: `In ${shell} commands, flags, words and files are completed${missing}`,
    ignore: missing !== "" || Deno.build.os === "windows",
    async fn() {
      const folder = await Deno.makeTempDir();
      const script = `${folder}/script`;
      try {
        const { code, stdout } = await runCommand(["completions", shell], { permissions: [] });
        assertEquals([code, stdout], [0, `${completions(shell)}\n`]);
        await Deno.writeTextFile(script, stdout);
        await Deno.writeTextFile(`${folder}/certificate.pem`, "");
        for (const [words, found] of CASES) {
          const completed = await ASK[shell](script, words.replace("%", folder).split(" "));
          assertEquals(completed.map((word) => word.replace(/[ =]$/, "").replace(folder, "%")), found, words);
        }
        if (shell !== "zsh") {
          const all = await ASK[shell](script, ["shouty", "--"]);
          const flags = [...Object.keys(SERVE.flags).map(flagName), "help", "version"].map((name) => `--${name}`);
          assertEquals(
            all.map((word) => word.replace(/=$/, "")).toSorted().filter((word, i, all) => word !== all[i - 1]),
            flags.toSorted(),
          );
        }
      } finally {
        await Deno.remove(folder, { recursive: true });
      }
    },
  });
}

Deno.test("Each shell's script has every flag of every command", () => {
  for (const shell of Object.keys(ASK) as Shell[]) {
    const script = completions(shell);
    for (const { name, flags } of COMMANDS) {
      const missing = Object.keys(flags).map(flagName).filter((flag) => !new RegExp(`${flag}\\b`).test(script));
      assertEquals(missing, [], `${shell} ${name}`);
    }
    assert(!script.includes("undefined"), shell);
  }
});

Deno.test("Each word that a placeholder of --help shows can be completed", () => {
  for (const { name, flags } of COMMANDS) {
    for (const [option, { kind: { symbol, words = [] } }] of Object.entries(flags)) {
      const shown = symbol.replaceAll(/[[\]]/g, "").split("|").filter((part) => /^[a-z]+$/.test(part));
      assertEquals(shown.filter((word) => !words.includes(word)), [], `${name} --${flagName(option)}`);
    }
  }
});
