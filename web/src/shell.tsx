// The frame of every page: its head, the choice of light or dark, its foot.
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";

function dark(): boolean {
  const set = document.documentElement.dataset.theme;
  return set ? set === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

export function Shell({ run, children, nav }: {
  run?: string; children: ComponentChildren; nav?: ComponentChildren;
}) {
  const [, redraw] = useState(0);
  return (
    <>
      <a class="skip" href="#main">Skip to the run</a>
      <header class="top">
        <span class="brand">
          <svg viewBox="0 0 24 24" width="22" height="22" aria-hidden="true">
            <path d="M12 7v3M12 10c0 3-6 2-6 5M12 10c0 3 6 2 6 5" fill="none" stroke="currentColor" stroke-width="1.8" />
            <circle cx="12" cy="5" r="2.6" /><circle cx="6" cy="18" r="2.6" /><circle cx="18" cy="18" r="2.6" />
          </svg>
          llmcompiler
        </span>
        {run && <span class="mono quiet">{run}</span>}
        {nav}
        <span class="space" />
        <button type="button" onClick={() => {
          document.documentElement.dataset.theme = dark() ? "light" : "dark";
          redraw((number) => number + 1);
        }}>{dark() ? "Light" : "Dark"}</button>
        <button type="button" class="print" onClick={() => print()}>Print</button>
      </header>
      <main id="main" tabIndex={-1}>{children}</main>
      <footer class="quiet">
        Keys: <kbd>/</kbd> search, <kbd>Esc</kbd> close, in the drawing <kbd>←↑↓→</kbd> walk, <kbd>+</kbd> <kbd>−</kbd> zoom, <kbd>0</kbd> fit.
      </footer>
    </>
  );
}
