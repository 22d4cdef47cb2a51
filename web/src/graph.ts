// The drawing of a DAG: cytoscape draws on a canvas, d3-dag places the nodes of a small graph.
import cytoscape, { type Core, type ElementDefinition, type NodeSingular } from "cytoscape";
import {
  coordGreedy, coordQuad, decrossTwoLayer, graphStratify, layeringLongestPath, sugiyama, twolayerAgg,
} from "d3-dag";
import type { Run, Task } from "./types";

// Above so many tasks, a drawing by layers is too wide to read; ranks are then packed into blocks.
const SMALL = 320;
// Up to so many nodes, quadratic programming spaces them evenly in no noticeable time.
const TINY = 40;

export interface Picture {
  select(id: number | null, center: boolean): void;
  hover(id: number | null): void;
  match(ids: Set<number> | null): void;
  zoom(factor: number): void;
  fit(): void;
  step(direction: "up" | "down" | "left" | "right"): void;
  update(run: Run): void;
  image(): string;
  destroy(): void;
}

const WIDE = { width: 190, height: 46 };
const SLIM = { width: 96, height: 26 };

function shorten(text: string, length: number): string {
  return text.length > length ? `${text.slice(0, length - 1)}…` : text;
}

function label(task: Task, small: boolean): string {
  if (!small) return `${task.id} ${shorten(task.tool, 12)}`;
  const parameters = task.call.slice(task.call.indexOf("("));
  return `${task.id}  ${shorten(task.tool, 20)}\n${shorten(parameters, 25)}`;
}

function elements(run: Run, tasks: Task[], small: boolean): ElementDefinition[] {
  const ids = new Set(tasks.map((task) => task.id));
  const critical = new Set(run.critical.tasks);
  const parts: ElementDefinition[] = [];
  for (const task of tasks) {
    parts.push({
      data: { id: `t${task.id}`, task: task.id, label: label(task, small) },
      classes: classes(task, critical),
    });
  }
  const used = new Set<number>();
  for (const task of tasks) {
    for (const need of task.needs) {
      if (!ids.has(need)) continue;
      used.add(need);
      const isCritical = critical.has(need) && critical.has(task.id);
      parts.push({
        data: { id: `e${need}-${task.id}`, source: `t${need}`, target: `t${task.id}` },
        classes: isCritical ? "critical" : "",
      });
    }
  }
  if (!small) return parts;
  for (const plan of run.plans) {
    if (plan.join === null || !plan.tasks.some((id) => ids.has(id))) continue;
    const key = `join${plan.number}`;
    const sources = plan.join.length ? plan.join : plan.tasks.filter((id) => !used.has(id));
    parts.push({ data: { id: key, label: "join" }, classes: "join" });
    for (const id of sources.filter((source) => ids.has(source))) {
      parts.push({ data: { id: `e${id}-${key}`, source: `t${id}`, target: key }, classes: "join" });
    }
  }
  return parts;
}

function classes(task: Task, critical: Set<number>): string {
  const kinds: string[] = [task.status];
  if (critical.has(task.id)) kinds.push("critical");
  if (task.extent !== null) kinds.push("map");
  return kinds.join(" ");
}

/** Set the positions of a small graph by Sugiyama's method (d3-dag). */
function layered(parts: ElementDefinition[]): void {
  const nodes = parts.filter((part) => !part.data.source);
  if (!nodes.length) return;
  const parents = new Map<string, string[]>();
  for (const { data } of parts) {
    if (data.source) parents.set(data.target, [...(parents.get(data.target) ?? []), data.source]);
  }
  const graph = graphStratify()
    .id((part: ElementDefinition) => part.data.id!)
    .parentIds((part: ElementDefinition) => parents.get(part.data.id!) ?? [])(nodes);
  const layers = sugiyama()
    .layering(layeringLongestPath().topDown(false))
    .decross(decrossTwoLayer().order(twolayerAgg()).passes(2))
    .nodeSize([WIDE.width, WIDE.height] as const)
    .gap([26, 44] as const);
  if (nodes.length <= TINY) layers.coord(coordQuad())(graph);
  else layers.coord(coordGreedy())(graph);
  // Mirror the drawing if that makes the plan read from left to right.
  let lean = 0;
  const places = [...graph.nodes()];
  const middle = places.reduce((sum, place) => sum + place.x, 0) / places.length;
  places.forEach((place) => (lean += (place.x - middle) * ((place.data.data.task ?? 0) - nodes.length / 2)));
  for (const { data, x, y } of places) data.position = { x: lean < 0 ? -x : x, y };
}

/** Set the positions of a large graph: a block of rows for each rank, in several columns of blocks. */
function packed(parts: ElementDefinition[], tasks: Task[]): void {
  const rank = new Map<number, number>();
  const ranks: number[][] = [];
  for (const task of tasks) {
    const at = Math.max(-1, ...task.needs.map((need) => rank.get(need) ?? -1)) + 1;
    rank.set(task.id, at);
    (ranks[at] ??= []).push(task.id);
  }
  const wide = Math.max(12, Math.ceil(Math.sqrt(tasks.length / 2.5)));
  const widest = Math.min(wide, Math.max(...ranks.map((ids) => ids.length))) * 116;
  const heights = ranks.map((ids) => Math.ceil(ids.length / wide) * 40 + 50);
  const high = heights.reduce((sum, each) => sum + each, 0);
  const most = high / Math.max(1, Math.round(Math.sqrt((1.25 * high) / (widest + 60))));
  const place = new Map<number, { x: number; y: number }>();
  let x = 0;
  let y = 0;
  ranks.forEach((ids, at) => {
    const columns = Math.min(wide, ids.length);
    ids.forEach((id, number) => {
      const column = number % columns;
      const row = Math.floor(number / columns);
      place.set(id, { x: x + (column - (columns - 1) / 2) * 116, y: y + row * 40 });
    });
    y += heights[at]!;
    if (y >= most) [x, y] = [x + widest + 60, 0];
  });
  for (const part of parts) if (part.data.task) part.position = place.get(part.data.task)!;
}

function sheet(holder: HTMLElement, small: boolean): cytoscape.StylesheetJson {
  const css = getComputedStyle(holder);
  const colour = (name: string) => css.getPropertyValue(`--${name}`).trim();
  const states = ["planned", "running", "waiting", "done", "failed", "skipped", "cancelled"];
  return [
    {
      selector: "node",
      style: {
        shape: "round-rectangle",
        ...(small ? WIDE : SLIM),
        label: "data(label)",
        color: colour("ink"),
        "font-family": "Menlo, Consolas, monospace",
        "font-size": 11.5,
        "line-height": 1.35,
        "text-valign": "center",
        "text-halign": "center",
        "text-wrap": small ? "wrap" : "none",
        "min-zoomed-font-size": small ? 5 : 7,
        "background-color": colour("planned-bg"),
        "border-color": colour("planned"),
        "border-width": 1.5,
      },
    },
    ...states.map((state) => ({
      selector: `node.${state}`,
      style: {
        "background-color": colour(`${state}-bg`),
        "border-color": colour(state),
        "border-style": state === "planned" ? "dashed" : "solid",
      } as const,
    })),
    { selector: "node.map", style: { "border-style": "double", "border-width": 4 } },
    { selector: "node.critical", style: { "border-color": colour("critical"), "border-width": 3 } },
    {
      selector: "node.join",
      style: {
        shape: "round-rectangle", width: 70, height: 30,
        "background-color": colour("ink-2"), "border-width": 0, color: colour("paper"),
      },
    },
    {
      selector: "edge",
      style: {
        width: small ? 1.6 : 1,
        "curve-style": small ? "bezier" : "haystack",
        "line-color": colour("line-2"),
        "target-arrow-color": colour("line-2"),
        "target-arrow-shape": small ? "triangle" : "none",
        "arrow-scale": 0.9,
        opacity: small ? 1 : 0.45,
      },
    },
    {
      selector: "edge.critical",
      style: {
        "line-color": colour("critical"), "target-arrow-color": colour("critical"),
        width: 2.4, opacity: 1, "z-index": 5,
      },
    },
    { selector: "edge.join", style: { "line-style": "dotted" } },
    { selector: ".dim", style: { opacity: 0.16 } },
    {
      selector: "node.hover",
      style: { "overlay-color": colour("accent"), "overlay-opacity": 0.14, "overlay-padding": 4 },
    },
    {
      selector: "node.chosen",
      style: {
        "border-color": colour("accent"), "border-width": 4,
        "overlay-color": colour("accent"), "overlay-opacity": 0.16, "overlay-padding": 5,
      },
    },
  ] as cytoscape.StylesheetJson;
}

export function draw(
  holder: HTMLElement,
  run: Run,
  tasks: Task[],
  onSelect: (id: number | null) => void,
  onHover: (id: number | null) => void,
): Picture {
  const small = tasks.length <= SMALL;
  const parts = elements(run, tasks, small);
  if (small) layered(parts);
  else packed(parts, tasks);
  const cy: Core = cytoscape({
    container: holder,
    elements: parts,
    style: sheet(holder, small),
    layout: { name: "preset", fit: false },
    minZoom: 0.02,
    maxZoom: 3,
    autoungrabify: true,
    boxSelectionEnabled: false,
    hideEdgesOnViewport: !small,
    textureOnViewport: !small,
    pixelRatio: small ? "auto" : 1,
  });
  cy.one("render", () => performance.mark("drawn"));
  let chosen: number | null = null;
  const node = (id: number): NodeSingular => cy.getElementById(`t${id}`) as NodeSingular;

  // The positions give the bounds; asking cytoscape for boxes would measure every label.
  const { width, height } = small ? WIDE : SLIM;
  const xs = parts.flatMap((part) => (part.position ? [part.position.x] : []));
  const ys = parts.flatMap((part) => (part.position ? [part.position.y] : []));
  const [left, right] = [Math.min(...xs) - width / 2, Math.max(...xs) + width / 2];
  const [top, bottom] = [Math.min(...ys) - height / 2, Math.max(...ys) + height / 2];

  function fit(): void {
    if (!xs.length) return;
    const room = { x: Math.max(cy.width() - 48, 1), y: Math.max(cy.height() - 48, 1) };
    // Three tasks need not fill a wall.
    const fitted = Math.min(room.x / (right - left), room.y / (bottom - top), 1.15);
    // A drawing that would be too small to read is shown larger, from its top.
    const long = small && fitted < 0.45;
    const zoom = long ? 0.55 : fitted;
    const y = long ? 20 - zoom * top : (cy.height() - zoom * (top + bottom)) / 2;
    cy.viewport({ zoom, pan: { x: (cy.width() - zoom * (left + right)) / 2, y } });
  }
  fit();

  cy.on("tap", (event) => {
    if (event.target === cy) onSelect(null);
    else if (event.target.isNode?.() && event.target.data("task")) {
      onSelect(event.target.data("task"));
    }
  });
  cy.on("mouseover", "node", (event) => onHover(event.target.data("task") ?? null));
  cy.on("mouseout", "node", () => onHover(null));

  const recolour = () => cy.style(sheet(holder, small));
  const dark = matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", recolour);
  const watcher = new MutationObserver(recolour);
  watcher.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  let moved = false;
  cy.on("dragpan scrollzoom pinchzoom", () => (moved = true));
  const sizes = new ResizeObserver(() => {
    cy.resize();
    if (!moved) fit();
  });
  sizes.observe(holder);

  return {
    select(id, center) {
      chosen = id;
      cy.batch(() => {
        cy.elements(".chosen").removeClass("chosen");
        cy.elements(".dim").removeClass("dim");
        if (id === null || node(id).empty()) return;
        const task = node(id);
        task.addClass("chosen");
        const kin = task.union(task.predecessors()).union(task.successors());
        cy.elements().not(kin).addClass("dim");
      });
      if (id !== null && center && node(id).nonempty()) {
        const at = node(id).renderedPosition();
        const inside = at.x > 40 && at.y > 40 && at.x < cy.width() - 40 && at.y < cy.height() - 40;
        if (!inside) cy.center(node(id));
      }
    },
    hover(id) {
      cy.elements(".hover").removeClass("hover");
      if (id !== null) node(id).addClass("hover");
    },
    match(ids) {
      if (chosen !== null) return;
      cy.batch(() => {
        cy.elements(".dim").removeClass("dim");
        if (ids === null) return;
        cy.elements().forEach((element) => {
          const task = element.data("task");
          if (task === undefined || !ids.has(task)) element.addClass("dim");
        });
      });
    },
    zoom(factor) {
      moved = true;
      cy.zoom({
        level: cy.zoom() * factor,
        renderedPosition: { x: cy.width() / 2, y: cy.height() / 2 },
      });
    },
    fit,
    step(direction) {
      if (chosen === null || node(chosen).empty()) {
        const first = tasks[0];
        if (first) onSelect(first.id);
        return;
      }
      const from = node(chosen).position();
      const vertical = direction === "up" || direction === "down";
      const sign = direction === "up" || direction === "left" ? -1 : 1;
      let best: number | null = null;
      let least = Infinity;
      cy.nodes("[task]").forEach((other) => {
        const { x, y } = other.position();
        const along = sign * (vertical ? y - from.y : x - from.x);
        const across = Math.abs(vertical ? x - from.x : y - from.y);
        if (along <= 1 || (!vertical && across > along * 2)) return;
        const far = along + across * 2;
        if (far < least) [best, least] = [other.data("task"), far];
      });
      if (best !== null) onSelect(best);
    },
    update(next) {
      const critical = new Set(next.critical.tasks);
      cy.batch(() => {
        for (const task of next.tasks) {
          const drawing = node(task.id);
          if (drawing.empty()) continue;
          const marks = ["chosen", "hover", "dim"].filter((name) => drawing.hasClass(name));
          drawing.classes([classes(task, critical), ...marks].join(" "));
        }
      });
    },
    image: () => cy.png({ full: true, scale: 2, maxWidth: 2400, maxHeight: 3200, bg: "#ffffff" }),
    destroy() {
      dark.removeEventListener("change", recolour);
      watcher.disconnect();
      sizes.disconnect();
      cy.destroy();
    },
  };
}
