// The report's program: a run, and those it is related to as tabs.
import { render } from "preact";
import { useState } from "preact/hooks";
import "./report.css";
import { Tabs } from "./parts";
import { RunView } from "./run";
import { Shell } from "./shell";
import type { Run } from "./types";

function name(run: Run, number: number, first: Run): string {
  if (number === 0) return `Run ${run.run}`;
  if (first.origin?.run === run.run) return `Parent ${run.run}`;
  return `Fork ${run.run}`;
}

function Report({ runs }: { runs: Run[] }) {
  const [chosen, setChosen] = useState(0);
  const run = runs[chosen]!;
  return (
    <Shell run={run.run}>
      {runs.length > 1 && (
        <Tabs
          label="Runs"
          panel="run-panel"
          names={runs.map((one, number) => name(one, number, runs[0]!))}
          chosen={chosen}
          onChoose={setChosen}
        />
      )}
      <div id="run-panel"><RunView run={run} key={run.run} /></div>
    </Shell>
  );
}

const data = JSON.parse(document.getElementById("data")!.textContent!) as { runs: Run[] };
const holder = document.getElementById("app")!;
holder.replaceChildren();
render(<Report runs={data.runs} />, holder);
performance.mark("ready");
