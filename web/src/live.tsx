// The live page: the list of runs, one run in progress, or two runs compared.
import { useEffect, useLayoutEffect, useMemo, useState } from "preact/hooks";
import { Status } from "./parts";
import { RunView } from "./run";
import { Shell } from "./shell";
import { count, seconds, type Run, type Waiting } from "./types";

const token = new URLSearchParams(location.search).get("token") ?? "";
const address = (path: string) => `/api/${path}?token=${encodeURIComponent(token)}`;

interface Summary {
  run: string; wall: number; question: string | null; status: string; answer: string | null;
  tasks: number; seconds: number | null; parent: string | null;
}
interface Problem { error: string; hint: string }

/** The latest data that the server sent for a path, and what went wrong. */
function useChanges<T>(path: string): [T | null, Problem | null] {
  const [data, setData] = useState<T | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  useEffect(() => {
    setData(null);
    setProblem(null);
    const source = new EventSource(address(path));
    source.onmessage = (event) => {
      setData(JSON.parse(event.data) as T);
      setProblem(null);
    };
    source.onerror = () => setProblem({ error: "the server does not answer", hint: "is llmcompiler ui still running?" });
    source.addEventListener("problem", (event) => {
      setProblem(JSON.parse((event as MessageEvent).data) as Problem);
      source.close();
    });
    source.addEventListener("end", () => source.close());
    return () => source.close();
  }, [path]);
  return [data, problem];
}

async function request<T>(path: string, body?: unknown): Promise<T> {
  const response = await fetch(address(path), body === undefined ? {} : { method: "POST", body: JSON.stringify(body) });
  const data = await response.json();
  if (!response.ok) throw data as Problem;
  return data as T;
}

function ProblemNote({ of }: { of: Problem | null }) {
  return of && (
    <div class="why" role="alert"><bdi>{of.error}</bdi>{of.hint && <div>hint: <bdi>{of.hint}</bdi></div>}</div>
  );
}

const asProblem = (error: unknown): Problem =>
  error && typeof error === "object" && "error" in error
    ? (error as Problem) : { error: String(error), hint: "" };

function StartForm() {
  const [text, setText] = useState("");
  const [inputs, setInputs] = useState("");
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<Problem | null>(null);
  async function submit(event: Event): Promise<void> {
    event.preventDefault();
    setBusy(true);
    setProblem(null);
    try {
      const values = inputs.trim() ? JSON.parse(inputs) : {};
      const { run } = await request<{ run: string }>("runs", { text, inputs: values });
      location.hash = `#/run/${run}`;
    } catch (error) {
      setProblem(asProblem(error));
    }
    setBusy(false);
  }
  return (
    <form class="start" onSubmit={submit} aria-label="Start a run">
      <h1>Ask</h1>
      <textarea aria-label="Question or plan" placeholder="A question, or a plan: 1. country(&quot;Japan&quot;) …" value={text}
        onInput={(event) => setText(event.currentTarget.value)} dir="auto" />
      <div class="line-of">
        <input type="text" aria-label="Inputs of a plan, as JSON" placeholder='Inputs of a plan: {"city": "Lima"}' value={inputs}
          onInput={(event) => setInputs(event.currentTarget.value)} />
        <button class="action main" disabled={busy || !text.trim()}>{busy ? "Starting …" : "Start"}</button>
      </div>
      <ProblemNote of={problem} />
    </form>
  );
}

function RunList() {
  const [data, problem] = useChanges<{ runs: Summary[] }>("runs");
  const [query, setQuery] = useState("");
  const [filter, setFilter] = useState<string | null>(null);
  const [picked, setPicked] = useState<string[]>([]);
  const runs = data?.runs ?? [];
  const states = useMemo(() => [...new Set(runs.map((run) => run.status))].sort(), [runs]);
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  const matches = runs.filter((run) => {
    const text = `${run.run} ${run.question ?? ""} ${run.answer ?? ""}`.toLowerCase();
    return (filter === null || run.status === filter) && words.every((word) => text.includes(word));
  });
  const pick = (run: string) =>
    setPicked(picked.includes(run) ? picked.filter((id) => id !== run) : [...picked, run].slice(-2));
  return (
    <>
      <StartForm />
      <section class="section" aria-labelledby="runs-title">
        <h2 id="runs-title">Runs {data && <small>{count(matches.length, "run")}</small>}</h2>
        <div class="filters" role="search">
          <input id="search" type="search" aria-label="Search runs" placeholder="Search questions, answers, ids" value={query}
            onInput={(event) => setQuery(event.currentTarget.value)} />
          <div class="chips" role="group" aria-label="Filter by status">
            {states.map((state) => (
              <button key={state} type="button" class="chip" aria-pressed={filter === state}
                onClick={() => setFilter(filter === state ? null : state)}>{state}</button>
            ))}
          </div>
          <button type="button" class="action" disabled={picked.length !== 2}
            onClick={() => (location.hash = `#/compare/${picked.join("/")}`)}>Compare two</button>
        </div>
        <ProblemNote of={problem} />
        {data && !runs.length && <p class="quiet">No runs yet.</p>}
        <table class="runs">
          <thead><tr>
            <th scope="col"><span class="quiet">pick</span></th><th scope="col">question</th><th scope="col">status</th>
            <th scope="col" class="wide-only">tasks</th><th scope="col" class="wide-only">took</th><th scope="col" class="wide-only">began</th>
          </tr></thead>
          <tbody>
            {matches.map((run) => (
              <tr key={run.run}>
                <td><input type="checkbox" aria-label={`Pick ${run.run}`} checked={picked.includes(run.run)} onChange={() => pick(run.run)} /></td>
                <td>
                  <a href={`#/run/${run.run}`}><bdi>{run.question ?? "(a saved plan)"}</bdi></a>
                  {run.parent && <span class="quiet"> fork of {run.parent}</span>}
                  {run.answer && <span class="answer-line" dir="auto">{run.answer}</span>}
                </td>
                <td><Status of={run.status} /></td>
                <td class="wide-only">{run.tasks}</td>
                <td class="wide-only">{run.seconds === null ? "" : seconds(run.seconds)}</td>
                <td class="wide-only quiet">{new Date(run.wall * 1000).toLocaleString()}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </section>
    </>
  );
}

function ApprovalCard({ run, waiting }: { run: Run; waiting: Waiting }) {
  const [text, setText] = useState(waiting.arguments);
  const [reason, setReason] = useState("");
  const [problem, setProblem] = useState<Problem | null>(null);
  const task = run.tasks.find((task) => task.id === waiting.task);
  async function decide(verdict: string): Promise<void> {
    try {
      const changed = text !== waiting.arguments;
      await request(`runs/${run.run}/decide`, {
        task: waiting.task, index: waiting.index, verdict, reason,
        arguments: verdict === "approved" && changed ? JSON.parse(text) : null,
      });
      setProblem(null);
    } catch (error) {
      setProblem(asProblem(error));
    }
  }
  return (
    <section class="wait-card" aria-label={`Task ${waiting.task} waits for approval`}>
      <h2>${waiting.task} {task?.tool} waits for approval</h2>
      <textarea aria-label="Arguments" value={text} readOnly={!waiting.editable} onInput={(event) => setText(event.currentTarget.value)} />
      <div class="buttons">
        <button type="button" class="action main" onClick={() => decide("approved")}>{text === waiting.arguments ? "Approve" : "Approve as edited"}</button>
        <button type="button" class="action" onClick={() => decide("denied")}>Deny</button>
        <input type="text" aria-label="Why it is denied" placeholder="Why it is denied" value={reason} onInput={(event) => setReason(event.currentTarget.value)} />
      </div>
      <ProblemNote of={problem} />
    </section>
  );
}

function RunPage({ id }: { id: string }) {
  const [run, problem] = useChanges<Run>(`runs/${id}`);
  const [refusal, setRefusal] = useState<Problem | null>(null);
  if (!run) return <><ProblemNote of={problem} />{!problem && <p class="quiet">Reading …</p>}</>;
  const stopped = run.status === "failed" || run.status === "interrupted";
  return (
    <>
      <ProblemNote of={problem} />
      {run.waiting.map((call) => <ApprovalCard key={`${call.task}/${call.index.join()}`} run={run} waiting={call} />)}
      {stopped && (
        <p><button type="button" class="action" onClick={() => request(`runs/${run.run}/resume`, {}).then(() => setRefusal(null), (error) => setRefusal(asProblem(error)))}>Resume this run</button></p>
      )}
      <ProblemNote of={refusal} />
      <RunView run={run} live key={run.run} />
    </>
  );
}

interface Side { run: string; question: string | null; status: string; answer: string | null; seconds: number; plans: number;
  usage: { prompt_tokens: number; completion_tokens: number; calls: number } }
interface Comparison {
  same: { plan: boolean; values: boolean; answer: boolean }; before: Side; after: Side;
  tasks: { before: number | null; after: number | null; change: string; tool: string;
    arguments: { name: string; before: string | null; after: string | null }[];
    outcomes: { index: number[]; path: string; before: string; after: string }[] }[];
}

function ComparePage({ before, after }: { before: string; after: string }) {
  const [data, setData] = useState<Comparison | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  useEffect(() => {
    request<Comparison>(`compare/${before}/${after}`).then(setData, (error) => setProblem(asProblem(error)));
  }, [before, after]);
  if (!data) return <><ProblemNote of={problem} />{!problem && <p class="quiet">Comparing …</p>}</>;
  const differing = data.tasks.filter((task) => task.change !== "same" || task.outcomes.length);
  return (
    <>
      <section class="answer" aria-labelledby="compare-title">
        <h1 id="compare-title">Two runs</h1>
        <div class="facts-line">
          {Object.entries(data.same).map(([what, same]) => <span key={what}><Status of={same ? "done" : "failed"} label={`${same ? "same" : "other"} ${what}`} /></span>)}
        </div>
      </section>
      <div class="two">
        {[data.before, data.after].map((side) => (
          <div key={side.run}>
            <h2><a href={`#/run/${side.run}`}>{side.run}</a></h2>
            <p dir="auto">{side.question ?? "(a saved plan)"}</p>
            <p><Status of={side.status} /> <span class="quiet">{seconds(side.seconds)}, {count(side.plans, "plan")}, {count(side.usage.calls, "model call")}, {side.usage.prompt_tokens} + {side.usage.completion_tokens} tokens</span></p>
            <pre class="text" dir="auto" tabIndex={0} role="region" aria-label={`answer of ${side.run}`}>{side.answer ?? ""}</pre>
          </div>
        ))}
      </div>
      <section class="section" aria-labelledby="tasks-title">
        <h2 id="tasks-title">Tasks that differ <small>{differing.length} of {data.tasks.length}</small></h2>
        {differing.length > 0 && (
          <div class="wide" tabIndex={0} role="region" aria-label="Tasks that differ">
            <table>
              <thead><tr><th scope="col">task</th><th scope="col">what</th><th scope="col">{data.before.run}</th><th scope="col">{data.after.run}</th></tr></thead>
              <tbody>
                {differing.flatMap((task) => {
                  const name = `${task.before ?? "–"} → ${task.after ?? "–"} ${task.tool}`;
                  const rows = [
                    ...task.arguments.map((argument) => [argument.name, argument.before ?? "", argument.after ?? ""]),
                    ...task.outcomes.map((outcome) => [`value ${outcome.index.length ? `[${outcome.index}]` : ""}${outcome.path}`, outcome.before, outcome.after]),
                  ];
                  return (rows.length ? rows : [["", "", ""]]).map(([what, before, after], number) => (
                    <tr key={`${name}${number}`}>
                      <td>{number === 0 && <><span class="mono">{name}</span> {task.change !== "same" && <span class={`change ${task.change}`}>{task.change}</span>}</>}</td>
                      <td>{what}</td><td class="mono"><bdi>{before}</bdi></td><td class="mono"><bdi>{after}</bdi></td>
                    </tr>
                  ));
                })}
              </tbody>
            </table>
          </div>
        )}
      </section>
    </>
  );
}

export function LivePage() {
  const [hash, setHash] = useState(location.hash);
  useLayoutEffect(() => {
    const changed = () => setHash(location.hash);
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  const [, kind, id, otherId] = hash.replace(/^#/, "").split("/");
  return (
    <Shell run={kind === "run" ? id : undefined} nav={kind ? <a href="#/">All runs</a> : undefined}>
      {kind === "run" && id ? <RunPage id={id} key={id} />
        : kind === "compare" && id && otherId ? <ComparePage before={id} after={otherId} />
          : <RunList />}
    </Shell>
  );
}
