import { assertEquals } from "@std/assert";
import { onSignals } from "../../../cli/process/signals.ts";
import { NO_SIGNALS } from "../../kit/command.ts";

Deno.test({
  name: `Each of two signals counts once, also if it arrives twice, as under deno task${NO_SIGNALS}`,
  ignore: NO_SIGNALS !== "",
  fn() {
    const handlers = new Map<string, () => void>();
    const { addSignalListener } = Deno;
    const { now } = performance;
    const said: string[] = [];
    let time = 0;
    const signal = (name: string, at: number) => {
      time = at;
      handlers.get(name)!();
    };
    try {
      Deno.addSignalListener = (name, handler) => void handlers.set(name, handler);
      performance.now = () => time;
      onSignals((name) => said.push(`stop ${name}`), (name, after, code) => said.push(`quit ${name} ${after} ${code}`));
      for (const at of [1000, 1005, 1300]) signal("SIGINT", at);
      assertEquals(said, ["stop SIGINT"]);
      for (const at of [1400, 1405]) signal("SIGINT", at);
      signal("SIGTERM", 2000);
      assertEquals(said, ["stop SIGINT", "quit SIGINT 400 130"]);
    } finally {
      Object.assign(Deno, { addSignalListener });
      Object.assign(performance, { now });
    }
  },
});
