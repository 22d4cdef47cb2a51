// Reasoning branches: their drafts side by side, step by step, and their outcome.
import { useState } from "preact/hooks";
import { Pairs, Section, Status, Text } from "./parts";
import { count, seconds, type Branch, type Call, type Draft, type Run } from "./types";

// So many branches are open at first. A fan-out may have thousands; a closed branch costs no drawing.
const OPEN_AT_FIRST = 4;

export const branchKey = (name: string): string => `branch-${name.replace(/\W+/g, "-")}`;

export function Branches({ run }: { run: Run }) {
  const calls = new Map(run.calls.map((call) => [call.id, call]));
  return (
    <Section id="reasoning" title="Reasoning" note={count(run.branches.length, "branch", "branches")}>
      {run.branches.map((branch, number) => <BranchView key={branch.name} run={run} branch={branch} calls={calls} openAtFirst={number < OPEN_AT_FIRST} />)}
    </Section>
  );
}

interface BranchProps { run: Run; branch: Branch; calls: Map<string, Call>; openAtFirst: boolean }

function BranchView({ run, branch, calls, openAtFirst }: BranchProps) {
  const [open, setOpen] = useState(openAtFirst);
  const key = branchKey(branch.name);
  const till = branch.ended ?? run.seconds;
  const facts: [string, string][] = [
    ["took", seconds(till - branch.started)],
    ["calls", `${branch.steps.flat().length}, at most ${branch.cost.peak} at once`],
    ["tokens in all", branch.cost.total.toLocaleString("en") + (branch.cost.unknown ? ` (${branch.cost.unknown} cut, their prompts estimated)` : "")],
    ["on the accepted path", branch.cost.path.toLocaleString("en")],
  ];
  if (branch.cost.cached) facts.push(["read from cache", branch.cost.cached.toLocaleString("en")]);
  if (branch.cost.waited.length) facts.push(["the end waited for", `${branch.cost.waited.join(" → ")}, ${seconds(branch.cost.waited_seconds)}`]);
  return (
    <details class="branch" id={key} open={open} onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>
        <span class="mono">${branch.name}</span> <span class="tool">{branch.strategy}</span>{" "}
        <Status of={branch.ended === null ? (run.status === "unfinished" ? "running" : "cancelled") : "done"} label={branch.ended === null ? "not ended" : undefined} />{" "}
        <strong>{branch.why}</strong>{branch.answer !== null && !branch.answer.includes("\n") && <>: <bdi class="branch-answer">{branch.answer}</bdi></>}
      </summary>
      {open && <><Text label="problem">{branch.problem}</Text>
      <ol class="steps">
        {branch.steps.map((step, number) => <StepView key={number} branch={branch} step={step} calls={calls} till={till} number={number + 1} />)}
      </ol>
      <div class="reduced">
        <h4>What was made of them</h4>
        <p>
          {branch.why || "No outcome yet."}
          {branch.stopped && <> Stopped at its budget of <bdi>{branch.stopped}</bdi>.</>}
        </p>
        {branch.answer !== null && <Text label={`answer of ${branch.name}`}>{branch.answer}</Text>}
        {branch.votes.length > 0 && <Votes of={branch.votes} />}
        {branch.notes.map((note) => <p class="quiet" key={note}>Note: <bdi>{note}</bdi></p>)}
        <dl class="facts">{facts.map(([name, value]) => <div key={name}><dt>{name}</dt><dd>{value}</dd></div>)}</dl>
        <details>
          <summary>Options{branch.context && ", context"} and figures</summary>
          <Pairs of={{ ...branch.options, ...branch.data }} />
          {branch.context && <><h4>Context</h4><Text label="context">{branch.context}</Text></>}
        </details>
      </div></>}
    </details>
  );
}

function Votes({ of }: { of: [string, number][] }) {
  const total = of.reduce((sum, [, number]) => sum + number, 0);
  return (
    <table class="votes">
      <thead><tr><th scope="col">answer</th><th scope="col">drafts</th><th scope="col"><span class="hidden">share</span></th></tr></thead>
      <tbody>
        {of.map(([answer, number]) => (
          <tr key={answer}>
            <th scope="row"><bdi class="mono">{answer}</bdi></th><td>{number}</td>
            <td aria-hidden="true"><i class="share" style={{ width: `${(100 * number) / total}%` }} /></td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

interface StepProps { branch: Branch; step: Draft[]; calls: Map<string, Call>; till: number; number: number }

function StepView({ branch, step, calls, till, number }: StepProps) {
  const labels = [...new Set(step.map((draft) => draft.label.replace(/\s*\d+$/, "")).filter(Boolean))];
  const title = `${labels.join(", ") || "calls"}${step.length > 1 ? ` × ${step.length}` : ""}`;
  return (
    <li>
      <h4>{number}. {title}</h4>
      <div class="drafts" tabIndex={0} role="group" aria-label={`Step ${number}: ${title}`}>
        {step.map((draft) => <DraftCard key={draft.call} branch={branch} draft={draft} call={calls.get(draft.call)!} till={till} />)}
      </div>
    </li>
  );
}

function DraftCard({ branch, draft, call, till }: { branch: Branch; draft: Draft; call: Call; till: number }) {
  const duration = Math.max(till - branch.started, 0.001);
  const at = (time: number) => `${(100 * (time - branch.started)) / duration}%`;
  const end = call.seconds === null ? till : call.started + call.seconds;
  const first = call.first ?? end;
  const name = ["draft"];
  if (draft.accepted) name.push("accepted");
  return (
    <section class={name.join(" ")} aria-label={`Draft ${draft.call}`}>
      <div class="draft-head">
        <span class="mono">{draft.call}</span> <span class="quiet">{draft.label}</span>
        {draft.finish !== "stop" && <Status of={draft.finish === "failed" ? "failed" : draft.finish ? "cancelled" : "running"} label={draft.finish || "writes"} />}
      </div>
      <div class="when" title={`${seconds(call.started - branch.started)} into the branch, ${seconds(end - call.started)}`} aria-hidden="true">
        <i class="think" style={{ left: at(call.started), right: `calc(100% - ${at(first)})` }} />
        <i class="stream" style={{ left: at(first), right: `calc(100% - ${at(end)})` }} />
      </div>
      <Text label={`what ${draft.call} wrote`}>{call.text}</Text>
      <details>
        <summary>Prompt</summary>
        {call.prompt.map((message, place) => <Text key={place} label={`${message.role} of ${draft.call}`}>{message.text}</Text>)}
      </details>
      {call.failure && <p class="why"><bdi>{call.failure.message}</bdi></p>}
      <p class="draft-foot">
        {draft.answer !== null && <span class={draft.agrees ? "verdict agrees" : "verdict"}>answer <bdi class="mono">{draft.answer}</bdi></span>}
        {draft.accepted && <span class="verdict path">accepted path</span>}
        <span class="quiet">
          {call.usage && `${call.usage.prompt_tokens.toLocaleString("en")} + ${call.usage.completion_tokens.toLocaleString("en")} tokens, `}
          {seconds(end - call.started)}
        </span>
      </p>
    </section>
  );
}
