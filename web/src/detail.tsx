// Everything that is recorded about one task.
import { useLayoutEffect, useRef } from "preact/hooks";
import { CallText, Pairs, Status, Text, Why } from "./parts";
import { branchKey } from "./thinking";
import { seconds, type Branch, type Run, type Task } from "./types";

interface Props {
  run: Run;
  task: Task;
  onSelect: (id: number | null) => void;
}

export function Detail({ run, task, onSelect }: Props) {
  const head = useRef<HTMLHeadingElement>(null);
  useLayoutEffect(() => head.current?.closest(".detail")?.scrollTo(0, 0), [task.id]);
  const users = run.tasks.filter((other) => other.needs.includes(task.id)).map((other) => other.id);
  const calls = run.calls.filter((call) => call.id.startsWith(`${task.id}/`) || call.id.startsWith(`${task.id}[`));
  const branches = run.branches.filter((branch) => branch.task === task.id);
  const writer = run.calls.find(
    (call) => call.role === "planner" && call.started <= task.planned
      && call.started + (call.seconds ?? Infinity) >= task.planned - 0.001,
  );
  const show = (branch: Branch) => {
    onSelect(null); // on a phone this panel would cover the drafts
    const section = document.getElementById(branchKey(branch.name)) as HTMLDetailsElement;
    section.open = true;
    section.scrollIntoView({ block: "start" });
    section.querySelector("summary")!.focus({ preventScroll: true });
  };
  const facts: [string, string][] = [];
  if (task.started !== null) {
    facts.push(["took", seconds((task.ended ?? run.seconds) - task.started)]);
    facts.push(["started", `${seconds(task.started)} into the run`]);
    if (task.started - task.ready > 0.0005) facts.push(["waited", seconds(task.started - task.ready)]);
  }
  if (run.critical.tasks.includes(task.id)) facts.push(["slack", "none: on the critical path"]);
  else if (task.slack !== null) facts.push(["slack", seconds(task.slack)]);
  if (task.cached) facts.push(["result", "kept from an earlier run"]);
  if (task.extent !== null) facts.push(["elements", String(task.extent)]);
  const links = (ids: number[]) => ids.slice(0, 60).map((id) => (
    <button type="button" class="link" key={id} onClick={() => onSelect(id)}>${id}</button>
  ));
  return (
    <aside class="detail" aria-label={`Task ${task.id}`}>
      <header>
        <h2 ref={head}>${task.id} <span class="tool">{task.tool}</span></h2>
        <Status of={task.status} />
        <button type="button" class="close" aria-label="Close details" onClick={() => onSelect(null)}>
          ✕
        </button>
      </header>
      <p class="mono"><CallText task={task} /></p>
      {task.thought && <p class="thought"><bdi>{task.thought}</bdi></p>}
      <dl class="facts">
        {facts.map(([name, value]) => <div key={name}><dt>{name}</dt><dd>{value}</dd></div>)}
        {task.needs.length > 0 && <div><dt>needs</dt><dd>{links(task.needs)}</dd></div>}
        {users.length > 0 && <div><dt>used by</dt><dd>{links(users)}</dd></div>}
      </dl>
      <Why of={task.failure} />
      {task.because !== null && <p class="why">not run: {links([task.because])} did not succeed</p>}
      {task.reason && <p class="why">stopped: <bdi>{task.reason}</bdi></p>}
      {branches.slice(0, 20).map((branch) => (
        <p key={branch.name}>
          <span class="mono">${branch.name}</span> <strong>{branch.strategy}</strong>: {branch.why || "no outcome yet"}{" "}
          <button type="button" class="link" onClick={() => show(branch)}>drafts side by side</button>
        </p>
      ))}
      {task.value !== null && <><h3>Value</h3><Text label="value">{task.value}</Text></>}
      {task.arguments && Object.keys(task.arguments).length > 0 && (
        <><h3>Arguments</h3><Pairs of={task.arguments} /></>
      )}
      {task.elements.length > 0 && (
        <>
          <h3>Elements</h3>
          {task.elements.map((element) => (
            <details key={element.index.join()}>
              <summary>
                [{element.index.join(", ")}] <Status of={element.status} />{" "}
                <bdi class="mono quiet">{(element.value ?? element.failure ?? "").slice(0, 80)}</bdi>
              </summary>
              <Pairs of={element.arguments} />
              {element.value !== null && <Text label="value">{element.value}</Text>}
              {element.failure && <p class="why"><bdi>{element.failure}</bdi></p>}
            </details>
          ))}
          {(task.extent ?? 0) > task.elements.length && (
            <p class="quiet">{task.elements.length} of {task.extent} are shown.</p>
          )}
        </>
      )}
      {task.attempts.length > 0 && (
        <>
          <h3>Attempts</h3>
          <table>
            <thead><tr><th scope="col">attempt</th><th scope="col">started</th>
              <th scope="col">took</th><th scope="col">outcome</th></tr></thead>
            <tbody>
              {task.attempts.map((attempt, number) => (
                <tr key={number}>
                  <td>{attempt.number}{attempt.index.length > 0 && ` of [${attempt.index.join(", ")}]`}</td>
                  <td>{seconds(attempt.started)}</td>
                  <td>{attempt.ended === null ? "" : seconds(attempt.ended - attempt.started)}</td>
                  <td><Status of={attempt.outcome} /> {attempt.failure && <bdi>{attempt.failure}</bdi>}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </>
      )}
      {calls.map((call) => (
        <details key={call.id}>
          <summary>Model call {call.id} {call.label}{call.usage && `, ${call.usage.completion_tokens} tokens`}</summary>
          {call.prompt.map((message, number) => (
            <div key={number}><h4>{message.role}</h4><Text label={message.role}>{message.text}</Text></div>
          ))}
          <h4>wrote</h4><Text label="answer">{call.text}</Text>
        </details>
      ))}
      {writer && (
        <p class="quiet">
          Planned {seconds(task.planned)} into the run by {writer.model} ({writer.id}
          {writer.usage && `: ${writer.usage.prompt_tokens} + ${writer.usage.completion_tokens} tokens`}
          ); its prompt is under Models.
        </p>
      )}
    </aside>
  );
}
