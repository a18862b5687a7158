// Resources of KEDA and of the Prometheus operator, one JSON document on each line of standard input: types, missing
// fields, and fields that nobody knows. The models' validators say nothing of the last ones, as the API server would
// drop them without a word; so it is watched which fields a validator looks at, and the others are unknown to it.
import { createInterface } from "node:readline";
import * as keda from "@kubernetes-models/keda/keda.sh/v1alpha1/index";
import * as prometheus from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/index";

const MODELS = { "keda.sh/v1alpha1": keda, "monitoring.coreos.com/v1": prometheus };
// Metadata is every resource's, and checked with the others.
const ELSEWHERE = new Set(["/metadata", "/apiVersion", "/kind"]);

/** A value whose fields tell `seen` that they were read. */
function watched(value, path, seen) {
  if (value === null || typeof value !== "object") return value;
  const children = new Map();
  return new Proxy(value, {
    get(target, key) {
      const child = target[key];
      if (typeof key === "symbol" || !Object.hasOwn(target, key)) return child;
      seen.add(`${path}/${key}`);
      if (!children.has(key)) children.set(key, watched(child, `${path}/${key}`, seen));
      return children.get(key);
    },
  });
}

/** The paths of all fields. */
function* fields(value, path = "") {
  if (value === null || typeof value !== "object") return;
  for (const [key, child] of Object.entries(value)) {
    const here = `${path}/${key}`;
    if (ELSEWHERE.has(here)) continue;
    yield here;
    yield* fields(child, here);
  }
}

function* mistakes(document) {
  const Model = MODELS[document.apiVersion]?.[document.kind];
  if (!Model) {
    yield "there is no model of this kind";
    return;
  }
  const seen = new Set();
  try {
    Model.prototype.validate.call(watched(document, "", seen));
  } catch (error) {
    yield error.message;
  }
  for (const field of fields(document)) if (!seen.has(field)) yield `${field} is unknown`;
}

let wrong = 0;
let checked = 0;
for await (const line of createInterface({ input: process.stdin })) {
  const document = JSON.parse(line);
  checked += 1;
  for (const mistake of mistakes(document)) {
    console.error(`${document.kind} ${document.metadata.name}: ${mistake}`);
    wrong += 1;
  }
}
console.log(`${checked} resources of KEDA and of the Prometheus operator are as their models say`);
process.exit(wrong ? 1 : 0);
