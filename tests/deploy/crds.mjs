// Judges objects of KEDA, the Prometheus operator and the Gateway API by the packages @kubernetes-models.
//
// In: the folder of the packages as argument, a list of objects as JSON on stdin. Out: for each object a
// list of faults as JSON, or null where no package knows its kind. The validators pass over unknown keys,
// so each object is read through a proxy: what a validator never asks for is a key that it does not know.

import { existsSync, readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const folder = `${process.argv[2]}/node_modules/@kubernetes-models`;
// Where the validator of a kind lies, by its group.
const places = {
  "keda.sh/v1alpha1": "keda/_schemas/ComGithubKedacoreKedaV2ApisKedaV1alpha1",
  "monitoring.coreos.com/v1":
    "prometheus-operator/_schemas/ComGithubPrometheusOperatorPrometheusOperatorPkgApisMonitoringV1",
  "gateway.networking.k8s.io/v1": "gateway-api/_schemas/IoK8sSigsGatewayApiApisV1",
};

async function validator({ apiVersion, kind }) {
  const file = `${folder}/${places[apiVersion]}${kind}.js`;
  return existsSync(file) ? (await import(pathToFileURL(file).href)).validate : null;
}

function watched(value, path, asked) {
  if (value === null || typeof value !== "object") return value;
  return new Proxy(value, {
    get(object, key) {
      if (typeof key === "string") asked.add(`${path}/${key}`);
      return watched(Reflect.get(object, key), `${path}/${String(key)}`, asked);
    },
  });
}

function* keys(value, path) {
  if (value === null || typeof value !== "object") return;
  for (const key of Object.keys(value)) {
    yield `${path}/${key}`;
    yield* keys(value[key], `${path}/${key}`);
  }
}

async function judge(object) {
  const validate = await validator(object);
  if (!validate) return null;
  const asked = new Set();
  if (!validate(watched(object, "", asked))) {
    return validate.errors.map((e) => `${e.instancePath}: ${e.keyword} ${JSON.stringify(e.params)}`);
  }
  const unknown = [...keys(object, "")].filter((path) => !asked.has(path));
  // A key below an unknown one is no fault of its own.
  return unknown
    .filter((path) => !unknown.includes(path.slice(0, path.lastIndexOf("/"))))
    .map((path) => `${path} is no key of ${object.kind}`);
}

const objects = JSON.parse(readFileSync(0, "utf8"));
process.stdout.write(JSON.stringify(await Promise.all(objects.map(judge))));
