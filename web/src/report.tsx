// The report: a run, with its parent and its forks as tabs.
import { useState } from "preact/hooks";
import { Tabs } from "./parts";
import { RunView } from "./run";
import { Shell } from "./shell";
import type { Run } from "./types";

function tabName(run: Run, number: number, first: Run): string {
  if (number === 0) return `Run ${run.run}`;
  if (first.origin?.run === run.run) return `Parent ${run.run}`;
  return `Fork ${run.run}`;
}

export function Report({ runs }: { runs: Run[] }) {
  const [chosen, setChosen] = useState(0);
  const run = runs[chosen]!;
  return (
    <Shell run={run.run}>
      {runs.length > 1 && (
        <Tabs
          label="Runs"
          panel="run-panel"
          names={runs.map((each, number) => tabName(each, number, runs[0]!))}
          chosen={chosen}
          onChoose={setChosen}
        />
      )}
      <div id="run-panel"><RunView run={run} key={run.run} /></div>
    </Shell>
  );
}
