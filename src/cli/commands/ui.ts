// SPDX-License-Identifier: Apache-2.0
import { InvalidArgumentError } from "commander";
import { addCommand, type Program, usageError } from "../command.ts";

interface UiOptions {
  readonly port: number;
}

const HOUR_MS = 3_600_000;

export function addUi(program: Program): void {
  addCommand<UiOptions>(
    program,
    {
      usage: "ui",
      summary: "a status page of the node on loopback, for as long as this runs; it only reads",
      examples: [
        "ambient-cni ui                        # prints the page's address",
        "ambient-cni ui --port 8080            # then: ssh -L 8080:127.0.0.1:8080 NODE",
        "ambient-cni ui --socket /run/istio-cni/ambient-cni.sock",
      ],
    },
    (command) => command.option("--port <number>", "of loopback; 0: one that is free", parsePort, 0),
    async (session, { port }) => {
      if (session.globals.from !== undefined) usageError("a report stays as it is: `status --from` shows it");
      const { UiServer } = await import("../ui/server.ts");
      // A source of its own for each question: the agent may come and go.
      const read = async (name: "status" | "pods" | "decisions" | "readiness" | "metrics") =>
        (await session.source()).read(name);
      const server = new UiServer({ port, read });
      const url = await server.listen();
      session.env.stdout.write(`${url}\n`);
      try {
        for (;;) await session.env.pause(HOUR_MS);
      } finally {
        await server.stop();
      }
    },
  );
}

function parsePort(text: string): number {
  const port = Number(text);
  if (!/^\d{1,5}$/.test(text) || port > 65_535) throw new InvalidArgumentError("A port is expected.");
  return port;
}
