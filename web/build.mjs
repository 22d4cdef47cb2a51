// Builds the pages' programs into the Python package, with the licences of what is in them.
// The output is the same wherever it is built: tests compare it with the committed files.
import { build } from "esbuild";
import { readFileSync, readdirSync, writeFileSync, mkdirSync, existsSync } from "node:fs";

const out = process.argv[2] ?? "../llmcompiler/view/assets";
mkdirSync(out, { recursive: true });

const entries = { report: "src/report.tsx" };
if (existsSync("src/live.tsx")) entries.live = "src/live.tsx";

for (const [name, entry] of Object.entries(entries)) {
  const { metafile } = await build({
    entryPoints: { [name]: entry },
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
  const inside = new Set();
  for (const input of Object.keys(metafile.inputs)) {
    const found = /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(input);
    if (found) inside.add(found[1]);
  }
  const licences = [...inside].sort().map((name) => {
    const folder = `node_modules/${name}`;
    const { version } = JSON.parse(readFileSync(`${folder}/package.json`, "utf8"));
    const file = readdirSync(folder).find((one) => /^licen[cs]e/i.test(one));
    if (!file) throw new Error(`${name} has no licence file`);
    return `${name} ${version}\n\n${readFileSync(`${folder}/${file}`, "utf8").trim()}`;
  });
  const text = licences.join(`\n\n${"-".repeat(72)}\n\n`).replaceAll("*/", "* /");
  const file = `${out}/${name}.js`;
  const code = readFileSync(file, "utf8");
  if (/<\/script|<!--/i.test(code)) throw new Error("the script would end its own element");
  writeFileSync(file, `/* This page contains:\n\n${text}\n*/\n${code}`);
}
