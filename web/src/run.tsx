// One run: answer, plan beside its drawing, timeline, models, notes.
//
// Listeners and drawings are layout effects, so they are in place before the first paint: a reader
// may press a key as soon as anything is visible.
import { useCallback, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { Detail } from "./detail";
import { draw, type Picture } from "./graph";
import { CallText, Dot, Pairs, Section, Status, Tabs, Text, Why } from "./parts";
import { Rows } from "./rows";
import { Branches } from "./thinking";
import { Timeline } from "./timeline";
import { count, seconds, type Run, type Task } from "./types";

const ORDER = ["failed", "running", "waiting", "cancelled", "skipped", "planned", "done"];

export function RunView({ run, live }: { run: Run; live?: boolean }) {
  const [chosen, setChosen] = useState<number | null>(null);
  const [hovered, setHovered] = useState<number | null>(null);
  const [query, setQuery] = useState("");
  const [filter, setFilter] = useState<string | null>(null);
  const [plan, setPlan] = useState(0);
  const byId = useMemo(() => new Map(run.tasks.map((task) => [task.id, task])), [run]);
  const several = run.plans.length > 1;
  const inPlan = useMemo(
    () => (several && plan > 0 ? run.tasks.filter((task) => task.plan === run.plans[plan - 1]!.number) : run.tasks),
    [run, plan, several],
  );
  const matching = useMemo(() => {
    const words = query.toLowerCase().split(/\s+/).filter(Boolean);
    if (!words.length && filter === null) return null;
    return new Set(
      inPlan.filter((task) => {
        if (filter === "critical" ? !run.critical.tasks.includes(task.id) : filter !== null && task.status !== filter) return false;
        const text = `$${task.id} ${task.call} ${task.value ?? ""} ${task.failure?.message ?? ""}`.toLowerCase();
        return words.every((word) => text.includes(word));
      }).map((task) => task.id),
    );
  }, [inPlan, query, filter]);
  const lines = matching === null ? inPlan : inPlan.filter((task) => matching.has(task.id));
  const counts = useMemo(() => {
    const tally = new Map<string, number>();
    for (const task of run.tasks) tally.set(task.status, (tally.get(task.status) ?? 0) + 1);
    return ORDER.filter((state) => tally.has(state)).map((state) => [state, tally.get(state)!] as const);
  }, [run]);
  const select = useCallback((id: number | null) => setChosen(id), []);
  const hover = useCallback((id: number | null) => setHovered(id), []);
  const task = chosen === null ? undefined : byId.get(chosen);

  useLayoutEffect(() => {
    const key = (event: KeyboardEvent) => {
      const typing = event.target instanceof HTMLInputElement || event.target instanceof HTMLTextAreaElement;
      if (event.key === "Escape") {
        if (typing && query) setQuery("");
        else setChosen(null);
      } else if (event.key === "/" && !typing) {
        event.preventDefault();
        document.getElementById("search")?.focus();
      }
    };
    addEventListener("keydown", key);
    return () => removeEventListener("keydown", key);
  }, [query]);

  return (
    <div class={`run${task ? " with-detail" : ""}`}>
      <Answer run={run} live={live} />
      <Section
        id="plan"
        title="Plan"
        note={<>{count(run.tasks.length, "task")}{run.planner && <>, planner {run.planner}</>}</>}
      >
        {several && (
          <Tabs
            label="Plans"
            panel="plan-panel"
            names={["All plans", ...run.plans.map((each, number) => (number ? `Plan ${each.number} (replan)` : `Plan ${each.number}`))]}
            chosen={plan}
            onChoose={setPlan}
          />
        )}
        <div class="filters" role="search">
          <input
            id="search"
            type="search"
            placeholder="Search tasks, calls, values  ( / )"
            aria-label="Search tasks"
            value={query}
            onInput={(event) => setQuery(event.currentTarget.value)}
          />
          <div class="chips" role="group" aria-label="Filter by state">
            {counts.map(([state, number]) => (
              <button
                key={state}
                type="button"
                class={`chip ${state}`}
                aria-pressed={filter === state}
                onClick={() => setFilter(filter === state ? null : state)}
              >
                <Dot of={state} silent /> {state} {number.toLocaleString("en")}
              </button>
            ))}
            {run.critical.tasks.length > 1 && (
              <button type="button" class="chip critical" aria-pressed={filter === "critical"}
                onClick={() => setFilter(filter === "critical" ? null : "critical")}>
                critical path {run.critical.tasks.length}
              </button>
            )}
          </div>
          <output class="quiet" for="search">{matching !== null && `${lines.length.toLocaleString("en")} found`}</output>
        </div>
        <div class="beside" id="plan-panel" style={{ "--lines": inPlan.length }}>
          <Rows
            class="lines"
            label="Plan text"
            items={lines}
            height={28}
            show={chosen === null ? undefined : lines.findIndex((line) => line.id === chosen)}
            row={(line) => (
              <Line task={line} chosen={chosen === line.id} hovered={hovered === line.id} near={task?.needs.includes(line.id) ?? false}
                onSelect={select} onHover={hover} now={run.seconds} />
            )}
          />
          <Graph run={run} tasks={inPlan} chosen={chosen} hovered={hovered} matching={matching} onSelect={select} onHover={hover} />
        </div>
        <PlanNotes run={run} plan={plan} />
      </Section>
      {run.tasks.some((task) => task.started !== null) && (
        <Section id="timeline" title="Timeline" note={seconds(run.seconds)}>
          <Timeline run={run} tasks={inPlan} chosen={chosen} hovered={hovered} onSelect={select} onHover={hover} />
        </Section>
      )}
      {run.branches.length > 0 && <Branches run={run} />}
      {run.calls.length > 0 && <Models run={run} />}
      <Details run={run} />
      {task && <Detail run={run} task={task} onSelect={select} />}
    </div>
  );
}

function Answer({ run, live }: { run: Run; live?: boolean }) {
  const tokens = run.costs.reduce((sum, row) => sum + row.usage.prompt_tokens + row.usage.completion_tokens, 0);
  const priced = run.costs.length > 0 && run.costs.every((row) => row.dollars !== null);
  const dollars = run.costs.reduce((sum, row) => sum + (row.dollars ?? 0), 0);
  const facts: [string, string][] = [
    ["took", seconds(run.seconds)],
    ["tasks", run.tasks.length.toLocaleString("en")],
  ];
  if (run.calls.length) facts.push(["model calls", String(run.calls.length)], ["tokens", tokens.toLocaleString("en")]);
  if (priced && dollars > 0) facts.push(["cost", `$${dollars.toFixed(4)}`]);
  return (
    <section class="answer" aria-labelledby="question" aria-live={live ? "polite" : undefined}>
      <h1 id="question" dir="auto">{run.question ?? "A saved plan"}</h1>
      <div class="facts-line">
        <Status of={run.status} />
        {facts.map(([name, value]) => <span key={name}><span class="quiet">{name}</span> {value}</span>)}
        <span class="quiet"><time dateTime={new Date(run.wall * 1000).toISOString()}>{new Date(run.wall * 1000).toLocaleString()}</time></span>
      </div>
      {run.answer !== null && <div class={`the-answer${run.question === null ? " plain" : ""}`} dir="auto" tabIndex={0} role="region" aria-label="Answer">{run.answer}</div>}
      <Why of={run.failure} />
      {run.origin && (
        <p class="quiet">Forked from {run.origin.run}{run.origin.tasks.length > 0 && <>, anew from {run.origin.tasks.map((id) => `$${id}`).join(", ")}</>}.</p>
      )}
    </section>
  );
}

interface LineProps {
  task: Task; chosen: boolean; hovered: boolean; near: boolean; now: number;
  onSelect: (id: number | null) => void; onHover: (id: number | null) => void;
}

function Line({ task, chosen, hovered, near, now, onSelect, onHover }: LineProps) {
  const names = ["line", task.status];
  if (chosen) names.push("chosen");
  if (hovered) names.push("hover");
  if (near) names.push("near");
  return (
    <button
      type="button"
      class={names.join(" ")}
      aria-pressed={chosen}
      onClick={() => onSelect(chosen ? null : task.id)}
      onMouseEnter={() => onHover(task.id)}
      onMouseLeave={() => onHover(null)}
      onFocus={() => onHover(task.id)}
    >
      <Dot of={task.status} />
      <span class="number">{task.id}.</span>
      <CallText task={task} />
      <span class="time">{task.started !== null && seconds((task.ended ?? now) - task.started)}</span>
    </button>
  );
}

interface GraphProps {
  run: Run; tasks: Task[]; chosen: number | null; hovered: number | null; matching: Set<number> | null;
  onSelect: (id: number | null) => void; onHover: (id: number | null) => void;
}

function Graph({ run, tasks, chosen, hovered, matching, onSelect, onHover }: GraphProps) {
  const holder = useRef<HTMLDivElement>(null);
  const picture = useRef<Picture | null>(null);
  const [printed, setPrinted] = useState("");
  const shape = useMemo(() => tasks.map((task) => `${task.id}${task.extent === null ? "" : "m"}`).join() + run.plans.map((plan) => plan.join?.join()).join("|"), [tasks]);

  useLayoutEffect(() => {
    const drawing = draw(holder.current!, run, tasks, onSelect, onHover);
    picture.current = drawing;
    drawing.select(chosen, false);
    const print = () => {
      if (tasks.length <= 1000) setPrinted(drawing.image());
    };
    addEventListener("beforeprint", print);
    return () => {
      removeEventListener("beforeprint", print);
      drawing.destroy();
    };
  }, [shape, run.run]);
  useLayoutEffect(() => picture.current?.update(run), [run]);
  useLayoutEffect(() => picture.current?.select(chosen, true), [chosen]);
  useLayoutEffect(() => picture.current?.hover(hovered), [hovered]);
  useLayoutEffect(() => picture.current?.match(matching), [matching, chosen]);

  function key(event: KeyboardEvent): void {
    const arrows = { ArrowUp: "up", ArrowDown: "down", ArrowLeft: "left", ArrowRight: "right" } as const;
    const direction = arrows[event.key as keyof typeof arrows];
    if (direction) picture.current?.step(direction);
    else if (event.key === "+" || event.key === "=") picture.current?.zoom(1.3);
    else if (event.key === "-") picture.current?.zoom(1 / 1.3);
    else if (event.key === "0") picture.current?.fit();
    else return;
    event.preventDefault();
  }
  return (
    <div class="graph">
      <div
        class="canvas"
        role="application"
        tabIndex={0}
        aria-label={`Drawing of ${count(tasks.length, "task")}. Arrow keys go from task to task, plus and minus zoom, 0 shows all; the plan text beside it says the same.`}
        onKeyDown={key}
      >
        <div class="paper" ref={holder} aria-hidden="true" />
      </div>
      <div class="buttons" role="group" aria-label="Drawing">
        <button type="button" aria-label="Zoom in" onClick={() => picture.current?.zoom(1.3)}>+</button>
        <button type="button" aria-label="Zoom out" onClick={() => picture.current?.zoom(1 / 1.3)}>−</button>
        <button type="button" onClick={() => picture.current?.fit()}>Fit</button>
      </div>
      {printed && <img class="printed" src={printed} alt="The plan as a graph" />}
    </div>
  );
}

function PlanNotes({ run, plan }: { run: Run; plan: number }) {
  const plans = run.plans.length > 1 && plan > 0 ? [run.plans[plan - 1]!] : run.plans;
  const diagnostics = plans.flatMap((each) => each.diagnostics);
  const replans = plans.flatMap((each) => each.joins.filter((join) => join.decision === "replan").map((join) => ({ ...join, plan: each.number })));
  const passes = plans.flatMap((each) => each.passes);
  const written = plans.filter((each) => each.text);
  return (
    <>
      {diagnostics.length > 0 && (
        <div class="plan-notes">
          <h3>What the front end said of the plan</h3>
          {diagnostics.map((diagnostic, number) => (
            <div class={`note ${diagnostic.severity}`} key={number}>
              <Text label={diagnostic.code}>{diagnostic.text}</Text>
            </div>
          ))}
        </div>
      )}
      {run.planner !== null && plans.some((each) => each.finished) && (
        <div class="plan-notes">
          <h3>What the passes did</h3>
          {passes.length > 0
            ? <ul class="passes">{passes.map((pass, number) => <li key={number}><bdi>{pass}</bdi></li>)}</ul>
            : <p class="quiet">Nothing: no call repeats another, so each was made as written.</p>}
        </div>
      )}
      {replans.map((join) => (
        <p class="note" key={join.plan}>After plan {join.plan} the joiner asked for another: <bdi>{join.text}</bdi></p>
      ))}
      {written.map((each) => (
        <details key={each.number}>
          <summary>Plan {each.number} as the model wrote it</summary>
          <Text label="the model's plan">{each.text}</Text>
        </details>
      ))}
    </>
  );
}

function Models({ run }: { run: Run }) {
  const number = (value: number) => value.toLocaleString("en");
  return (
    <Section id="models" title="Models and cost">
      <div class="wide" tabIndex={0} role="region" aria-label="Cost table">
        <table class="numbers">
          <thead>
            <tr>
              <th scope="col">role</th><th scope="col">model</th><th scope="col">calls</th>
              <th scope="col">prompt tokens</th><th scope="col">of them cached</th>
              <th scope="col">answer tokens</th><th scope="col">time</th><th scope="col">cost</th>
            </tr>
          </thead>
          <tbody>
            {run.costs.map((row) => (
              <tr key={row.role + row.model}>
                <th scope="row">{row.role}</th><td><bdi>{row.model}</bdi></td>
                <td>{number(row.calls)}{row.failed > 0 && ` (${row.failed} failed)`}</td>
                <td>{number(row.usage.prompt_tokens)}</td><td>{number(row.usage.cached_tokens)}</td>
                <td>{number(row.usage.completion_tokens)}</td><td>{seconds(row.seconds)}</td>
                <td>{row.dollars === null ? "not known" : row.dollars === 0 ? "free" : `$${row.dollars.toFixed(4)}`}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {run.branches.length > 0 && <p class="quiet">The calls of branches stand under Reasoning, with their prompts.</p>}
      {run.calls.filter((call) => call.role !== "branch").map((call) => (
        <details key={call.id} class="model-call">
          <summary>
            <span class="mono">{call.id}</span> {call.role}{" "}
            <span class="quiet">
              {call.seconds !== null && seconds(call.seconds)}
              {call.usage && `, ${number(call.usage.prompt_tokens)} + ${number(call.usage.completion_tokens)} tokens`}
              {call.first !== null && `, first words after ${seconds(call.first - call.started)}`}
            </span>
          </summary>
          <Why of={call.failure} />
          {call.prompt.map((message, place) => (
            <div key={place}><h3>{message.role}</h3><Text label={message.role}>{message.text}</Text></div>
          ))}
          <h3>wrote</h3><Text label="answer">{call.text}</Text>
        </details>
      ))}
    </Section>
  );
}

function Details({ run }: { run: Run }) {
  const facts = { ...run.models, ...run.limits };
  if (!run.notes.length && !Object.keys(run.inputs).length && !Object.keys(facts).length) return null;
  return (
    <Section id="more" title="More">
      {run.notes.length > 0 && (
        <ul class="notes">
          {run.notes.map((note, number) => (
            <li key={number}><span class="quiet mono">{seconds(note.at)}</span> <bdi>{note.text}</bdi></li>
          ))}
        </ul>
      )}
      {Object.keys(run.inputs).length > 0 && <><h3>Inputs</h3><Pairs of={run.inputs} /></>}
      <dl class="facts">
        {Object.entries(run.models).map(([role, model]) => <div key={role}><dt>{role}</dt><dd><bdi>{model}</bdi></dd></div>)}
        {Object.entries(run.limits).map(([name, value]) => <div key={name}><dt>limit {name}</dt><dd><bdi>{value}</bdi></dd></div>)}
      </dl>
    </Section>
  );
}
