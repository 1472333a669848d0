import { DATAPLANE_MODE_LABEL, REDIRECTION_ANNOTATION } from "../core/constants.ts";
import type { Exchange } from "./app/protocol.ts";
import { type Checks, expectEqual, expectThat } from "./checks.ts";
import { atTheBorder } from "./demo-border.ts";
import { leftoversIn } from "./demo-leftovers.ts";
import { demoMesh, NAMESPACE, OUTSIDE, VIP4, VIP6 } from "./demo-mesh.ts";
import { besideSidecars } from "./demo-sidecar.ts";
import { addressOf, endpoint, refusal, told, url } from "./demo-words.ts";
import type { RunningPod } from "./kubelet.ts";
import { addressesOf, BRIDGE } from "./network.ts";
import { ipOf } from "./pod-records.ts";
import type { Sandbox } from "./sandbox.ts";
import { until } from "./until.ts";
import { hasPort, Wire } from "./wire.ts";

const DNS_SERVER = "10.96.0.10";

/** The story of the playground: a request before the label, under it, and after it. */
export class Demo {
  private readonly pods = new Map<string, RunningPod>();

  constructor(
    private readonly sandbox: Sandbox,
    private readonly checks: Checks,
    private readonly chapter: (title: string) => void,
  ) {}

  /**
   * Runs all chapters; with `keep` the pods stay. Checks that fail are collected; only what makes going
   * on useless is thrown.
   */
  async run(keep = false): Promise<void> {
    await this.beforeTheLabel();
    await this.label();
    await this.insideTheMesh();
    await this.atTheBorder();
    await this.newPod();
    await this.besideSidecars();
    await this.failures();
    await this.unlabel();
    if (!keep) await this.removePods();
  }

  private pod(name: string): RunningPod {
    const pod = this.pods.get(name);
    if (pod === undefined) throw new Error(`no pod ${name}`);
    return pod;
  }

  private app(name: string) {
    const { app } = this.pod(name);
    if (app === undefined) throw new Error(`pod ${name} has no program to talk to`);
    return app;
  }

  private async runPod(namespace: string, name: string): Promise<void> {
    this.pods.set(name, await this.sandbox.kubelet.run({ namespace, name, serviceAccount: name }));
  }

  /** Does something with everything that crosses the bridge kept. */
  private onTheWire<T>(body: () => Promise<T>): Promise<{ result: T; bytes: Buffer }> {
    return Wire.during(this.sandbox.node, BRIDGE, body);
  }

  private async beforeTheLabel(): Promise<void> {
    const { sandbox, checks } = this;
    this.chapter("Before the label: three pods, no mesh");
    for (const name of [NAMESPACE, OUTSIDE]) sandbox.api.put({ kind: "Namespace", metadata: { name } });
    const { workloads, services } = demoMesh();
    sandbox.describeMesh(workloads, services);
    await sandbox.startAgent();
    await checks.check("plugin-installed", "the agent has chained its CNI plugin", async () => {
      const { plugin, conf } = sandbox.installed();
      expectThat("the plugin's binary is missing", plugin);
      const { plugins } = JSON.parse(conf) as { plugins: { type: string }[] };
      const types = plugins.map(({ type }) => type);
      expectEqual("last plugin of the chain", types.at(-1), "istio-cni");
      return `10-sandbox.conflist: ${types.join(" -> ")}`;
    });
    await this.runPod(NAMESPACE, "client");
    await this.runPod(NAMESPACE, "server");
    await this.runPod(OUTSIDE, "outsider");
    sandbox.startZtunnel();
    await checks.check("plain-before", "client -> server is plain text on the wire", async () => {
      const marker = "marker-plain-before";
      const { result, bytes } = await this.onTheWire(() =>
        this.app("client").fetch(url(ipOf(this.pod("server"), 4)), marker),
      );
      expectEqual("client address", addressOf(result.clientSeen), ipOf(this.pod("client"), 4));
      expectThat("the request is not readable on the wire", bytes.includes(marker));
      return `${told(result)}; "${marker}" is readable on ${BRIDGE}`;
    });
    const old = await this.app("client").open("old", ipOf(this.pod("server"), 4), 9090);
    expectEqual("server of the old connection", old.server, "server");
  }

  private async label(): Promise<void> {
    const { sandbox, checks } = this;
    this.chapter(`kubectl label namespace ${NAMESPACE} ${DATAPLANE_MODE_LABEL}=ambient`);
    sandbox.label(NAMESPACE, DATAPLANE_MODE_LABEL, "ambient");
    await checks.check("annotated", "both pods are captured and annotated", async () => {
      const began = performance.now();
      for (const name of ["client", "server"]) {
        await until(`${name} is annotated`, () => this.redirection(name) === "enabled");
      }
      expectEqual("annotation of the outsider", this.redirection("outsider", OUTSIDE), undefined);
      const milliseconds = Math.round(performance.now() - began);
      return `${REDIRECTION_ANNOTATION}: enabled on both after ${milliseconds} ms; engine: ${await sandbox.engine()}`;
    });
    await checks.check("old-connection", "a connection opened before the label is still alive", async () => {
      expectEqual("echo", await this.app("client").say("old", "still here"), "still here");
      return "it echoes, outside the mesh as before";
    });
  }

  private redirection(pod: string, namespace: string = NAMESPACE): string | undefined {
    return this.sandbox.annotation(namespace, pod, REDIRECTION_ANNOTATION);
  }

  private async insideTheMesh(): Promise<void> {
    const { checks } = this;
    this.chapter("Inside the mesh: the same request, now as HBONE");
    for (const family of [4, 6] as const) {
      await checks.check(
        `hbone-v${family}`,
        `client -> server over IPv${family} is encrypted, addresses kept`,
        async () => {
          const marker = `marker-hbone-v${family}`;
          const [client, server] = [ipOf(this.pod("client"), family), ipOf(this.pod("server"), family)];
          const { result, bytes } = await this.onTheWire(() => this.app("client").fetch(url(server), marker));
          expectEqual("who answered", result.server, "server");
          expectEqual("client address at the server", addressOf(result.clientSeen), client);
          expectEqual("server address at the server", result.serverSeen, endpoint(server, 8080));
          expectEqual("getpeername at the client", result.clientPeer, endpoint(server, 8080));
          expectEqual("getsockname at the client", addressOf(result.clientLocal), client);
          expectThat("the request is readable on the wire", !bytes.includes(marker));
          expectThat("no packet went to port 15008", hasPort(bytes, 15008));
          return `${told(result)}; ${bytes.length} bytes on the wire, TLS on 15008, "${marker}" not among them`;
        },
      );
    }
    for (const vip of [VIP4, VIP6]) {
      await checks.check(`service-${vip}`, `client -> service ${vip} reaches its pod`, async () => {
        const result = await this.app("client").fetch(url(vip, 80));
        expectEqual("who answered", result.server, "server");
        expectEqual("getpeername at the client", result.clientPeer, endpoint(vip, 80));
        return told(result);
      });
    }
    await checks.check("dns", `DNS to ${DNS_SERVER} is answered on 15053, as if by the nameserver asked`, async () => {
      const answers = await this.app("client").resolve(DNS_SERVER, `server.${NAMESPACE}.svc.cluster.local`);
      expectEqual("answer", answers.join(), VIP4);
      return `server.${NAMESPACE}.svc.cluster.local -> ${answers.join()}`;
    });
    await checks.check("own-address", "client -> its own address stays in the pod", async () => {
      const own = ipOf(this.pod("client"), 4);
      const marker = "marker-own-address";
      const { result, bytes } = await this.onTheWire(() => this.app("client").fetch(url(own), marker));
      expectEqual("who answered", result.server, "client");
      expectEqual("client address", addressOf(result.clientSeen), own);
      expectThat("it went over the wire", !bytes.includes(marker) && !hasPort(bytes, 8080));
      return told(result);
    });
  }

  private async atTheBorder(): Promise<void> {
    this.chapter("At the border: clients outside the mesh, and kubelet");
    const { sandbox, checks } = this;
    const [client, server, outsider] = [this.pod("client"), this.pod("server"), this.pod("outsider")];
    await atTheBorder({ sandbox, checks, client, server, outsider });
  }

  private async newPod(): Promise<void> {
    const { checks } = this;
    this.chapter("A new pod: captured by the CNI chain before its first process runs");
    await checks.check("cni-add", "a pod created in the labelled namespace leaves ADD captured", async () => {
      await this.runPod(NAMESPACE, "latecomer");
      expectEqual("its address", ipOf(this.pod("latecomer"), 4), addressesOf(3)[0]);
      const marker = "marker-latecomer";
      const { result, bytes } = await this.onTheWire(() =>
        this.app("latecomer").fetch(url(ipOf(this.pod("server"), 4)), marker),
      );
      expectEqual("client address", addressOf(result.clientSeen), ipOf(this.pod("latecomer"), 4));
      expectThat("its first request is readable on the wire", !bytes.includes(marker));
      await until("it is annotated", () => this.redirection("latecomer") === "enabled");
      return told(result);
    });
  }

  private async besideSidecars(): Promise<void> {
    this.chapter("Mixed clusters: a pod with a sidecar, in the same sandbox");
    const { sandbox, checks } = this;
    const injected = await besideSidecars({ sandbox, checks, client: this.pod("client"), server: this.pod("server") });
    if (injected !== undefined) this.pods.set(injected.name, injected);
  }

  private async failures(): Promise<void> {
    const { sandbox, checks } = this;
    this.chapter("When things die");
    const server = url(ipOf(this.pod("server"), 4));
    await checks.check(
      "agent-killed",
      "kill -9 of the agent: traffic goes on, and so do open connections",
      async () => {
        await this.app("client").open("through", ipOf(this.pod("server"), 4), 9090);
        await sandbox.endAgent("SIGKILL");
        const away = await this.app("client").fetch(server);
        await sandbox.startAgent();
        const back = await this.app("client").fetch(server);
        expectEqual("echo", await this.app("client").say("through", "survived"), "survived");
        await this.app("client").close("through");
        return `without the agent: ${told(away)}; with the next one: ${told(back)}`;
      },
    );
    await checks.check("fail-closed", "without ztunnel new connections are refused, never in the clear", async () => {
      const ztunnel = sandbox.ztunnels.at(-1);
      await ztunnel?.child.end(10_000);
      const marker = "marker-no-ztunnel";
      const { result, bytes } = await this.onTheWire(() => refusal(this.app("client").fetch(server, marker)));
      expectThat("the request is readable on the wire", !bytes.includes(marker));
      return `${result.code} after ${result.milliseconds.toFixed(1)} ms`;
    });
    await checks.check("ztunnel-back", "the next ztunnel gets all pods, and traffic flows again", async () => {
      sandbox.startZtunnel();
      let seen: Exchange | undefined;
      await until("a request succeeds", async () => {
        seen = await this.app("client")
          .fetch(server)
          .catch(() => undefined);
        return seen !== undefined;
      });
      return seen === undefined ? "" : told(seen);
    });
  }

  private async unlabel(): Promise<void> {
    const { sandbox, checks } = this;
    this.chapter(`kubectl label namespace ${NAMESPACE} ${DATAPLANE_MODE_LABEL}-`);
    sandbox.label(NAMESPACE, DATAPLANE_MODE_LABEL, null);
    await checks.check("released", "annotations are gone and nothing of ours is left in the pods", async () => {
      for (const name of ["client", "server", "latecomer"]) {
        await until(`${name} is no longer annotated`, () => this.redirection(name) === undefined);
      }
      await until("the pods' netns are clean", async () => (await this.leftovers()) === "", 20_000).catch(
        async (error: unknown) => {
          throw new Error(`${String(error)}: ${await this.leftovers()}`);
        },
      );
      return "no rules, no TC filter, no policy rule, no route";
    });
    await checks.check("plain-after", "client -> server is plain text again", async () => {
      const marker = "marker-plain-after";
      const { result, bytes } = await this.onTheWire(() =>
        this.app("client").fetch(url(ipOf(this.pod("server"), 4)), marker),
      );
      expectThat("the request is not readable on the wire", bytes.includes(marker));
      return told(result);
    });
    await checks.check("old-connection-after", "the connection from before the label has survived it all", async () => {
      expectEqual("echo", await this.app("client").say("old", "goodbye"), "goodbye");
      return "opened before the label, alive after it";
    });
  }

  private async removePods(): Promise<void> {
    await this.checks.check("pods-deleted", "the pods are deleted: DEL of each plugin succeeds", async () => {
      for (const pod of [...this.pods.values()]) await this.sandbox.kubelet.remove(pod);
      const { stdout } = await this.sandbox.node.run(["ls", "/run/netns"], { timeoutMs: 5000 });
      expectEqual("network namespaces left", stdout.trim(), "");
      return `${this.pods.size} pods, no network namespace left`;
    });
  }

  private async leftovers(): Promise<string> {
    const pods = ["client", "server", "latecomer"].map((name) => this.pod(name));
    return (await Promise.all(pods.map((pod) => leftoversIn(this.sandbox.node, pod))))
      .filter((found) => found !== "")
      .join("; ");
  }
}
