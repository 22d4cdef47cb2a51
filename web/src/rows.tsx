// A list of many rows of one height. Only the visible rows are in the page.
import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";

/** A list of at most so many rows is in the page whole. */
const WINDOWED_ABOVE = 300;
const MOST_PRINTED = 1500;

interface Props<T> {
  items: T[];
  height: number;
  label: string;
  class: string;
  row: (item: T) => ComponentChildren;
  head?: ComponentChildren;
  /** The number of the item that must be visible. */
  show?: number;
}

export function Rows<T>({ items, height, label, class: name, row, head, show }: Props<T>) {
  const holder = useRef<HTMLDivElement>(null);
  const list = useRef<HTMLDivElement>(null);
  const [top, setTop] = useState(0);
  const [printing, setPrinting] = useState(false);
  const windowed = items.length > WINDOWED_ABOVE && !printing;
  const view = 900;

  useLayoutEffect(() => {
    const before = () => setPrinting(true);
    const after = () => setPrinting(false);
    addEventListener("beforeprint", before);
    addEventListener("afterprint", after);
    return () => {
      removeEventListener("beforeprint", before);
      removeEventListener("afterprint", after);
    };
  }, []);

  useLayoutEffect(() => {
    if (show === undefined || show < 0 || !holder.current || !list.current) return;
    const box = holder.current;
    const offset = list.current.offsetTop + show * height;
    if (offset < box.scrollTop + height * 2) box.scrollTop = offset - height * 3;
    else if (offset > box.scrollTop + box.clientHeight - height * 2) {
      box.scrollTop = offset - box.clientHeight + height * 3;
    }
  }, [show]);

  const first = windowed ? Math.max(0, Math.floor(top / height) - 12) : 0;
  const last = windowed
    ? Math.min(items.length, first + Math.ceil(view / height) + 24)
    : printing ? Math.min(items.length, MOST_PRINTED) : items.length;
  return (
    <div
      class={`scroll ${name}`}
      ref={holder}
      tabIndex={0}
      role="region"
      aria-label={label}
      onScroll={(event) => {
        const at = event.currentTarget.scrollTop;
        if (windowed && Math.abs(at - top) > height * 5) setTop(at);
      }}
    >
      {head}
      <div
        class="rows"
        role="list"
        ref={list}
        style={windowed ? { height: `${items.length * height}px` } : undefined}
      >
        {items.slice(first, last).map((item, number) => (
          <div
            role="listitem"
            aria-setsize={windowed ? items.length : undefined}
            aria-posinset={windowed ? first + number + 1 : undefined}
            class="row"
            key={first + number}
            style={
              windowed
                ? { position: "absolute", top: `${(first + number) * height}px`, left: 0, right: 0, height: `${height}px` }
                : { minHeight: `${height}px` }
            }
          >
            {row(item)}
          </div>
        ))}
      </div>
      {printing && items.length > MOST_PRINTED && <p>The first {MOST_PRINTED} of {items.length} are printed.</p>}
    </div>
  );
}
