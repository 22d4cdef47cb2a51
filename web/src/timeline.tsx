// When each model call and each task worked: streaming, waits, slack and the critical path.
import { scaleLinear } from "d3-scale";
import { useMemo, useState } from "preact/hooks";
import { Dot } from "./parts";
import { Rows } from "./rows";
import { seconds, type Call, type Run, type Task } from "./types";

interface Props {
  run: Run;
  tasks: Task[];
  chosen: number | null;
  hovered: number | null;
  onSelect: (id: number | null) => void;
  onHover: (id: number | null) => void;
}

const HEIGHT = 26;

export function Timeline({ run, tasks, chosen, hovered, onSelect, onHover }: Props) {
  const [zoom, setZoom] = useState(1);
  const end = Math.max(run.seconds, 0.001);
  const scale = useMemo(() => scaleLinear([0, end], [0, 100]), [end]);
  const critical = new Set(run.critical.tasks);
  const rows = useMemo(
    () => tasks.filter((task) => task.started !== null)
      .sort((a, b) => a.started! - b.started! || a.id - b.id),
    [tasks],
  );
  const span = (from: number, to: number) => ({
    left: `${scale(from)}%`,
    width: `${Math.max(scale(Math.min(to, end)) - scale(from), 0)}%`,
  });
  const calls = run.calls.filter((call) => call.role !== "branch");
  const idle = run.idle.reduce((sum, [from, to]) => sum + to - from, 0);
  const ticks = scale.ticks(Math.round(7 * zoom));

  const callRow = (call: Call) => {
    const till = call.seconds === null ? end : call.started + call.seconds;
    const first = call.first ?? till;
    return (
      <div class="lane model" key={call.id}>
        <div class="name"><span class="mono">{call.id}</span> <span class="quiet">{call.role}</span></div>
        <div class="track">
          <span class="bar think" style={span(call.started, first)} title={`${call.id}: first words after ${seconds(first - call.started)}`} />
          <span class="bar stream" style={span(first, till)} title={`${call.id} writes for ${seconds(till - first)}`} />
          {call.ticks.map((at, number) => <i class="tick" key={number} style={{ left: `${scale(at)}%` }} />)}
        </div>
      </div>
    );
  };
  const taskRow = (task: Task) => {
    const till = task.ended ?? end;
    const path = critical.has(task.id);
    const inside = scale(till) > 88 && scale(task.started!) < 12;
    const name = ["lane", "task", task.status];
    if (path) name.push("critical");
    if (chosen === task.id) name.push("chosen");
    if (hovered === task.id) name.push("hover");
    const took = seconds(till - task.started!);
    return (
      <button
        type="button"
        class={name.join(" ")}
        aria-pressed={chosen === task.id}
        title={`$${task.id} ${task.tool}: ${took}`
          + (task.started! - task.ready > 0.0005 ? `, waited ${seconds(task.started! - task.ready)}` : "")
          + (path ? ", critical path" : task.slack ? `, slack ${seconds(task.slack)}` : "")}
        onClick={() => onSelect(chosen === task.id ? null : task.id)}
        onMouseEnter={() => onHover(task.id)}
        onMouseLeave={() => onHover(null)}
        onFocus={() => onHover(task.id)}
      >
        <span class="name"><Dot of={task.status} /> <span class="mono">{task.id} {task.tool}</span></span>
        <span class="track">
          {task.started! > task.ready && <span class="wait" style={span(task.ready, task.started!)} />}
          <span class="bar run" style={span(task.started!, till)} />
          {!path && !!task.slack && <span class="slack" style={span(till, till + task.slack)} />}
          <span class={`took${inside ? " inside" : ""}`}
            style={inside ? { right: `${100 - scale(till)}%` }
              : scale(till) > 88 ? { right: `${100 - scale(task.started!)}%` } : { left: `${scale(till)}%` }}>
            {took}
          </span>
        </span>
      </button>
    );
  };
  const head = (
    <>
      <div class="lane axis" aria-hidden="true">
        <div class="name" />
        <div class="track">
          {ticks.map((at) => <span class={`at${scale(at) > 97 ? " last" : ""}`} key={at} style={{ left: `${scale(at)}%` }}>{at === 0 ? "0" : seconds(at)}</span>)}
        </div>
      </div>
      <div class="bands" aria-hidden="true" style={{ height: `${HEIGHT * (rows.length + calls.length)}px` }}>
        <div class="track">
          {ticks.map((at) => <i class="grid" key={at} style={{ left: `${scale(at)}%` }} />)}
          {run.idle.map(([from, to]) => <i class="idle" key={from} style={span(from, to)} />)}
        </div>
      </div>
      {calls.map(callRow)}
    </>
  );
  return (
    <>
      <div class="bar-tools">
        <p class="quiet">
          {run.critical.tasks.length > 0 && <>
            Critical path <strong>{seconds(run.critical.seconds)}</strong> through{" "}
            {run.critical.tasks.slice(0, 12).map((id) => (
              <button type="button" class="link" key={id} onClick={() => onSelect(id)}>${id}</button>
            ))}{run.critical.tasks.length > 12 ? " … " : ". "}
          </>}
          {run.idle.length === 0 ? "Something was at work all the time."
            : <>Nothing at work for <strong>{seconds(idle)}</strong> of {seconds(run.seconds)}.</>}
        </p>
        <div class="buttons">
          <button type="button" aria-label="Shrink the time axis" onClick={() => setZoom(Math.max(1, zoom / 2))}>−</button>
          <button type="button" aria-label="Stretch the time axis" onClick={() => setZoom(Math.min(64, zoom * 2))}>+</button>
        </div>
      </div>
      <Rows
        class={`timeline${zoom > 1 ? " zoomed" : ""}`}
        label="Timeline"
        items={rows}
        height={HEIGHT}
        head={<div class="stretch" style={{ width: `${zoom * 100}%` }}>{head}</div>}
        show={chosen === null ? undefined : rows.findIndex((task) => task.id === chosen)}
        row={(task) => <div class="stretch" style={{ width: `${zoom * 100}%` }}>{taskRow(task)}</div>}
      />
      <p class="legend" aria-hidden="true">
        <span><i class="key think" /> model reads</span> <span><i class="key stream" /> model writes</span>
        <span><i class="key wait" /> waits for a slot</span> <span><i class="key run" /> works</span>
        <span><i class="key crit" /> critical path</span> <span><i class="key slack" /> slack</span>
        <span><i class="key idle" /> nothing at work</span>
      </p>
    </>
  );
}
