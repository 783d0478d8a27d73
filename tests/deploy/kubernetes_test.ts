import {
  assertEquals,
  assertGreater,
  assertGreaterOrEqual,
  assertLess,
  assertLessOrEqual,
  assertMatch,
} from "@std/assert";
import { INSTRUMENTS } from "../../ops/metrics/instruments.ts";
import { test } from "../kit/bounded.ts";
import { ask, flagsOf, makeFolder, PROJECT, shipped } from "../kit/project/deploy.ts";
import { missingProgram } from "../kit/foreign/foreign.ts";
import { load } from "../kit/foreign/npm.ts";

const YAML = await load<{ parse(text: string): unknown }>("npm:yaml@2.9.1");
/** The schema of Kubernetes' API, as types and as validators. */
const MODELS = "kubernetes-models@5.1.0";
/** The kinds that are shipped, and where the models have them. */
const KINDS = {
  deployment: "apps/v1/Deployment",
  service: "v1/Service",
  pdb: "policy/v1/PodDisruptionBudget",
  hpa: "autoscaling/v2/HorizontalPodAutoscaler",
} as const;
const NAMES = Object.keys(KINDS) as (keyof typeof KINDS)[];
const NO_KUBECTL = await missingProgram("kubectl", "version", "--client");

interface Model {
  new (data: unknown): { validate(): void };
  readonly apiVersion: string;
  readonly kind: string;
}

const { missing: NO_MODELS } = await load(`npm:${MODELS}/${KINDS.service}`);
const MISSING = YAML.missing || NO_MODELS;

// deno-lint-ignore no-explicit-any
function manifest(name: keyof typeof KINDS): any {
  return YAML.module.parse(shipped(`kubernetes/${name}.yaml`));
}

function className(name: keyof typeof KINDS): string {
  return KINDS[name].split("/").at(-1)!;
}

test(
  "Kubernetes' schema accepts each manifest",
  async () => {
    for (const name of NAMES) {
      const { module } = await load<Record<string, Model>>(`npm:${MODELS}/${KINDS[name]}`);
      const { apiVersion, kind, ...rest } = manifest(name);
      // The models write both themselves, whatever they are given.
      assertEquals([apiVersion, kind], [KINDS[name].replace(/\/\w+$/, ""), className(name)]);
      new module[className(name)](rest).validate();
    }
  },
  60,
  MISSING,
);

test(
  "each field of the manifests is one that Kubernetes knows",
  async () => {
    await using folder = await makeFolder();
    const lines = NAMES.flatMap((name) => [
      `import type { I${className(name)} } from "npm:${MODELS}/${KINDS[name]}";`,
      // The compiler refuses a field that the type does not have. The schema alone would let a misspelt one pass.
      `export const ${name}: I${className(name)} = ${JSON.stringify(manifest(name))};`,
    ]);
    await Deno.writeTextFile(`${folder.path}/manifests.ts`, lines.join("\n"));
    const { code, text } = await ask(Deno.execPath(), ["check", "--quiet", "manifests.ts"], { cwd: folder.path });
    assertEquals(code, 0, text);
  },
  120,
  MISSING,
);

test(
  "kubectl finds all manifests in the folder",
  async () => {
    const { code, text } = await ask("kubectl", ["kustomize", `${PROJECT}/deploy/kubernetes`]);
    assertEquals(code, 0, text);
    const kinds = [...text.matchAll(/^kind: (\w+)$/gm)].map(([, kind]) => kind);
    assertEquals(kinds.toSorted(), NAMES.map(className).toSorted());
  },
  60,
  NO_KUBECTL,
);

/** The only container of a pod, and the flags of its shouty. */
function pod() {
  const { spec } = manifest("deployment").spec.template;
  const [container, ...others] = spec.containers;
  assertEquals([others, container.command], [[], undefined]);
  return { spec, container, flags: flagsOf(container.args) };
}

test(
  "a pod's lame duck outlasts its probe, and its drain is over before Kubernetes kills",
  () => {
    const { spec, container, flags } = pod();
    const { periodSeconds, failureThreshold, timeoutSeconds, httpGet } = container.readinessProbe;
    assertEquals(httpGet, { path: "/readyz", port: "admin" });
    const noticedMs = 1000 * (periodSeconds * failureThreshold + timeoutSeconds);
    // The rules of the nodes and the load balancer follow the probe.
    assertGreaterOrEqual(flags.drainDelay, noticedMs + 5000);
    assertLessOrEqual(flags.drainSpread, flags.drainTimeout);
    assertLessOrEqual(flags.drainDelay + flags.drainTimeout + 5000, 1000 * spec.terminationGracePeriodSeconds);
    assertEquals(container.lifecycle, undefined);
  },
  20,
  YAML.missing,
);

test(
  "a pod that is full or drains is not killed for it",
  () => {
    const { container } = pod();
    for (const probe of [container.livenessProbe, container.startupProbe]) {
      assertEquals(probe.httpGet, { path: "/healthz", port: "admin" });
    }
    const { periodSeconds, failureThreshold } = container.startupProbe;
    assertGreaterOrEqual(periodSeconds * failureThreshold, 30);
  },
  20,
  YAML.missing,
);

test(
  "a pod's ports are those of its flags, and its token comes from a Secret",
  () => {
    const { spec, container, flags } = pod();
    const ports = Object.fromEntries(
      container.ports.map(({ name, containerPort }: { name: string; containerPort: number }) => [name, containerPort]),
    );
    assertEquals(ports, { lines: flags.port, admin: (flags.admin as { port: number }).port });
    const [mount] = container.volumeMounts;
    assertEquals(flags.adminTokenFile, `${mount.mountPath}/token`);
    const volume = spec.volumes.find(({ name }: { name: string }) => name === mount.name);
    assertEquals(volume.secret, { secretName: "shouty-admin", defaultMode: 0o440 });
    assertEquals(spec.securityContext.fsGroup, spec.securityContext.runAsGroup);
    // Nobody ships a secret.
    assertEquals(NAMES.map((name) => manifest(name).kind).includes("Secret"), false);
  },
  20,
  YAML.missing,
);

test(
  "a pod may do nothing that it does not need",
  () => {
    const { spec, container } = pod();
    const { runAsNonRoot, runAsUser, runAsGroup, seccompProfile } = spec.securityContext;
    assertEquals([runAsNonRoot, seccompProfile.type], [true, "RuntimeDefault"]);
    assertMatch(shipped("docker/Dockerfile"), new RegExp(`^USER ${runAsUser}:${runAsGroup}$`, "m"));
    assertEquals([spec.automountServiceAccountToken, spec.enableServiceLinks], [false, false]);
    assertEquals(container.securityContext, {
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ["ALL"] },
    });
  },
  20,
  YAML.missing,
);

test(
  "the Service, the disruption budget and the autoscaler speak of the pods of the Deployment",
  () => {
    const { metadata, spec: { selector, template, replicas } } = manifest("deployment");
    const { labels } = template.metadata;
    assertEquals(selector.matchLabels, labels);
    assertEquals(manifest("service").spec.selector, labels);
    assertEquals(manifest("pdb").spec.selector.matchLabels, labels);
    const [spread] = template.spec.topologySpreadConstraints;
    assertEquals(spread.labelSelector.matchLabels, labels);
    const [port, ...others] = manifest("service").spec.ports;
    assertEquals([port.targetPort, others], ["lines", []]);
    const { kind, name } = manifest("hpa").spec.scaleTargetRef;
    assertEquals([kind, name, replicas], ["Deployment", metadata.name, undefined]);
  },
  20,
  YAML.missing,
);

test(
  "the autoscaler counts connections, and adds pods while those that are left have room for all",
  () => {
    const { flags, spec } = pod();
    const { metrics: [{ type, pods }], minReplicas, maxReplicas, behavior } = manifest("hpa").spec;
    assertEquals([type, pods.metric.name], ["Pods", INSTRUMENTS.active.prometheus]);
    assertGreaterOrEqual(minReplicas, 2);
    assertGreater(maxReplicas, minReplicas);
    const average = Number(pods.target.averageValue);
    // Without one pod, the others of the smallest number have all its connections.
    assertLessOrEqual(average * minReplicas, flags.maxConnections * (minReplicas - 1));
    const [{ value, periodSeconds }] = behavior.scaleDown.policies;
    assertEquals(value, 1);
    assertLess(spec.terminationGracePeriodSeconds, periodSeconds);
  },
  20,
  YAML.missing,
);
