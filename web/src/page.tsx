// The program of both pages. The element `data` holds the runs of a report; on the live page it
// holds no runs, because the server sends them.
import { render } from "preact";
import "./report.css";
import "./live.css"; // refines report.css, so it comes second
import { LivePage } from "./live";
import { Report } from "./report";
import type { Run } from "./types";

const data = JSON.parse(document.getElementById("data")!.textContent!) as { runs?: Run[] };
const holder = document.getElementById("app")!;
holder.replaceChildren();
render(data.runs ? <Report runs={data.runs} /> : <LivePage />, holder);
performance.mark("ready");
