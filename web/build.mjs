// Builds the program of the pages, and their style, into the Python package, with the licences of
// the packages inside. The output is the same wherever it is built: a test compares it with the
// committed files.
import { build } from "esbuild";
import { readFileSync, readdirSync, writeFileSync, mkdirSync } from "node:fs";

const out = process.argv[2] ?? "../llmcompiler/view/assets";
mkdirSync(out, { recursive: true });

const { metafile } = await build({
  entryPoints: ["src/page.tsx"],
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2022",
  charset: "ascii",
  legalComments: "none",
  outdir: out,
  metafile: true,
  logLevel: "warning",
});

const packages = new Set();
for (const input of Object.keys(metafile.inputs)) {
  const match = /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(input);
  if (match) packages.add(match[1]);
}
const licences = [...packages].sort().map((name) => {
  const folder = `node_modules/${name}`;
  const { version } = JSON.parse(readFileSync(`${folder}/package.json`, "utf8"));
  const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
  if (!file) throw new Error(`${name} has no licence file`);
  return `${name} ${version}\n\n${readFileSync(`${folder}/${file}`, "utf8").trim()}`;
});
const text = licences.join(`\n\n${"-".repeat(72)}\n\n`).replaceAll("*/", "* /");
const script = `${out}/page.js`;
const code = readFileSync(script, "utf8");
if (/<\/script|<!--/i.test(code)) throw new Error("the script would end its own element");
writeFileSync(script, `/* This page contains:\n\n${text}\n*/\n${code}`);
