// Small parts that several views share.
import type { ComponentChildren } from "preact";
import { useRef } from "preact/hooks";
import type { Failure, Task } from "./types";

const MARKS: Record<string, string> = {
  done: "✓", failed: "✕", skipped: "–", cancelled: "◼", running: "▶", waiting: "↻", planned: "○",
  answered: "✓", interrupted: "◼", unfinished: "▶", retried: "↻",
};

export function Status({ of, label }: { of: string; label?: string }) {
  return (
    <span class={`status ${of}`}>
      <span aria-hidden="true">{MARKS[of] ?? "•"}</span> {label ?? of}
    </span>
  );
}

export function Dot({ of, silent }: { of: string; silent?: boolean }) {
  if (silent) return <span class={`dot ${of}`} aria-hidden="true">{MARKS[of] ?? "•"}</span>;
  return <span class={`dot ${of}`} title={of} role="img" aria-label={of}>{MARKS[of] ?? "•"}</span>;
}

/** A text of the user, a model or a tool, shown as plain text and never as markup. */
export function Text({ children, label }: { children: string; label?: string }) {
  return (
    <pre class="text" dir="auto" tabIndex={0} role="region" aria-label={label ?? "text"}>
      {children}
    </pre>
  );
}

export function Pairs({ of }: { of: Record<string, string> | null }) {
  const entries = Object.entries(of ?? {});
  if (!entries.length) return null;
  return (
    <dl class="pairs">
      {entries.map(([name, value]) => (
        <div key={name}>
          <dt><bdi>{name}</bdi></dt>
          <dd><Text label={name}>{value}</Text></dd>
        </div>
      ))}
    </dl>
  );
}

export function Why({ of }: { of: Failure | null }) {
  if (!of) return null;
  return (
    <div class="why">
      <strong>{of.type}</strong> <bdi>{of.message}</bdi>
      {of.hint && <div class="quiet">hint: <bdi>{of.hint}</bdi></div>}
    </div>
  );
}

/** A call with its references marked. */
export function CallText({ task }: { task: Task }) {
  const needs = new Set(task.needs);
  const open = task.call.indexOf("(");
  const pieces = task.call.slice(open).split(/(\$\{?\d+\}?)/);
  return (
    <bdi class="call">
      <span class="tool">{task.call.slice(0, open)}</span>
      {pieces.map((piece, number) => {
        const reference = /^\$\{?(\d+)/.exec(piece);
        return reference && needs.has(Number(reference[1]))
          ? <span class="ref" key={number}>{piece}</span>
          : piece;
      })}
    </bdi>
  );
}

interface TabsProps {
  label: string;
  names: string[];
  chosen: number;
  onChoose: (number: number) => void;
  panel: string;
}

export function Tabs({ label, names, chosen, onChoose, panel }: TabsProps) {
  const holder = useRef<HTMLDivElement>(null);
  function key(event: KeyboardEvent): void {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const next = (chosen + step + names.length) % names.length;
    onChoose(next);
    (holder.current?.children[next] as HTMLElement | undefined)?.focus();
  }
  return (
    <div class="tabs" role="tablist" aria-label={label} ref={holder} onKeyDown={key}>
      {names.map((name, number) => (
        <button
          key={name}
          type="button"
          role="tab"
          aria-selected={number === chosen}
          aria-controls={panel}
          tabIndex={number === chosen ? 0 : -1}
          onClick={() => onChoose(number)}
        >
          {name}
        </button>
      ))}
    </div>
  );
}

export function Section({ id, title, note, children }: {
  id: string; title: string; note?: ComponentChildren; children: ComponentChildren;
}) {
  return (
    <section aria-labelledby={`${id}-title`} class={`section of-${id}`}>
      <h2 id={`${id}-title`}>{title} {note && <small>{note}</small>}</h2>
      {children}
    </section>
  );
}
