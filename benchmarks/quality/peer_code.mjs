// Run promptfoo's strategies that rewrite a question on this machine, as peer_code.py runs other code:
//
//   node benchmarks/quality/peer_code.mjs STRATEGIES JOB RESULT
//
// STRATEGIES is the bundle dist/src/strategies-*.js of its npm package, whose other modules need 80 more packages. The
// regions of these strategies need none, and are evaluated alone.
import fs from "node:fs";

const REGIONS = { base64: "addBase64Encoding", rot13: "addRot13", leetspeak: "addLeetspeak", homoglyph: "addHomoglyphs" };
const TIMED = 1000;

const [bundle, job, result] = process.argv.slice(2);
const source = fs.readFileSync(bundle, "utf8");
const asked = JSON.parse(fs.readFileSync(job, "utf8"));
const begun = performance.now();
const regions = Object.keys(REGIONS).map(
  (name) => source.split(`//#region src/redteam/strategies/${name}.ts`)[1].split("//#endregion")[0],
);
const names = Object.values(REGIONS);
const code = new Function(`${regions.join("\n")}\nreturn { ${names.join(", ")} };`)();
const imported = (performance.now() - begun) / 1000;
const cases = (questions) => questions.map((question) => ({ vars: { question } }));
const texts = {};
const seconds = {};
for (const name of names) {
  texts[name] = code[name](cases(asked.questions), "question").map((one) => one.vars.question);
  if (asked.timed) {
    const many = cases(Array.from({ length: TIMED }, (_, at) => asked.questions[at % asked.questions.length]));
    const from = performance.now();
    code[name](many, "question");
    seconds[name] = (performance.now() - from) / 1000;
  }
}
fs.writeFileSync(result, JSON.stringify({ texts, seconds, imported }));
