// The data of a run, as llmcompiler/view/report_data.py writes it.

export type Status =
  | "planned" | "running" | "waiting" | "done" | "failed" | "skipped" | "cancelled";

export interface Failure { blame: string; type: string; message: string; hint: string }

export interface Attempt {
  number: number; index: number[]; started: number; ended: number | null;
  outcome: string; failure: string | null;
}

export interface Element {
  index: number[]; status: string; arguments: Record<string, string> | null;
  value: string | null; failure: string | null;
}

export interface Task {
  id: number; plan: number; tool: string; call: string; thought: string | null;
  needs: number[]; status: Status; planned: number; ready: number;
  started: number | null; ended: number | null; slack: number | null;
  arguments: Record<string, string> | null; value: string | null; failure: Failure | null;
  because: number | null; reason: string; cached: boolean;
  attempts: Attempt[]; extent: number | null; elements: Element[];
}

export interface Usage {
  prompt_tokens: number; cached_tokens: number; completion_tokens: number; calls: number;
}

export interface Call {
  id: string; role: string; label: string; model: string; started: number; first: number | null;
  seconds: number | null; ticks: number[]; prompt: { role: string; text: string }[];
  text: string; usage: Usage | null; failure: Failure | null;
}

export interface Plan {
  number: number; started: number | null; tasks: number[]; text: string; finished: boolean;
  join: number[] | null;
  diagnostics: { code: string; severity: string; at: number; text: string }[];
  passes: string[];
  joins: { decision: string; text: string }[];
}

export interface Cost {
  role: string; model: string; calls: number; failed: number; usage: Usage;
  seconds: number; dollars: number | null;
}

export interface Draft {
  call: string; label: string; finish: string; place: number | null; answer: string | null;
  agrees: boolean; accepted: boolean;
}

export interface Branch {
  name: string; task: number; strategy: string; problem: string; context: string;
  options: Record<string, string>; started: number; ended: number | null; stopped: string;
  why: string; answer: string | null; notes: string[]; votes: [string, number][];
  data: Record<string, string>;
  cost: {
    total: number; path: number; decoded: number; cached: number; peak: number; unknown: number;
    waited: string[]; waited_seconds: number;
  };
  steps: Draft[][];
}

export interface Waiting { task: number; index: number[]; arguments: string; editable: boolean }

export interface Run {
  run: string; wall: number; status: string; question: string | null; answer: string | null;
  failure: Failure | null; seconds: number; planner: string | null;
  models: Record<string, string>; inputs: Record<string, string>; limits: Record<string, string>;
  origin: { run: string; tasks: number[]; changes: string } | null;
  plans: Plan[]; tasks: Task[]; calls: Call[];
  critical: { tasks: number[]; seconds: number }; idle: [number, number][];
  branches: Branch[]; costs: Cost[]; notes: { at: number; text: string; task: number | null }[];
  waiting: Waiting[];
}

export function seconds(value: number): string {
  if (value < 0.0995) return `${(value * 1000).toFixed(value < 0.00995 ? 1 : 0)} ms`;
  if (value < 59.95) return `${value.toFixed(value < 9.95 ? 2 : 1)} s`;
  return `${Math.floor(value / 60)} min ${String(Math.round(value % 60)).padStart(2, "0")} s`;
}

export const count = (number: number, noun: string, many = `${noun}s`): string =>
  `${number.toLocaleString("en")} ${number === 1 ? noun : many}`;
