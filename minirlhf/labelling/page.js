"use strict";
/* One page, two ways to keep votes: a server's, or (a packet, opened from disk) this browser's until they are saved. */

const $ = (id) => document.getElementById(id);
const PAUSE = 200; // ms after a pair appears in which no key counts: a key pressed twice is one answer
const KEYS = { ArrowLeft: "left", a: "left", ArrowRight: "right", b: "right", t: "tie", s: "skip", u: "undo", Backspace: "undo" };
// Characters that nobody sees, or that turn the direction of what follows, are spelt out.
const HIDDEN = /[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/g;
const visible = (text) => text.replace(HIDDEN, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");

const store = {
  get(key) { try { return JSON.parse(localStorage.getItem(key)); } catch { return null; } },
  set(key, value) { try { localStorage.setItem(key, JSON.stringify(value)); return true; } catch { return false; } },
};

/** Votes go to the server that the page came from. One that gets no answer is kept and sent again: its id counts once. */
function server() {
  const token = location.hash.slice(1);
  const headers = { "Content-Type": "application/json", ...(token && { Authorization: `Bearer ${token}` }) };
  async function send(path, body) {
    const unsent = `minirlhf-unsent-${body.voter}`;
    if (path !== "/next") store.set(unsent, { path, body });
    for (;;) {
      let answer, said;
      try {
        answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
        said = await answer.json();
      } catch {
        notice("The server does not answer. Your answer is kept here and sent again.");
      }
      if (answer && answer.status < 500 && said) {
        if (path !== "/next") store.set(unsent, null);
        if (answer.ok) { notice(""); return said; }
        if (answer.status !== 409) { notice(said.error); return new Promise(() => {}); }
        const next = await send("/next", { voter: body.voter });
        notice(said.error);
        return next;
      }
      if (said) notice(said.error);
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
  return {
    start(voter) {
      const unsent = store.get(`minirlhf-unsent-${voter}`);
      return unsent ? send(unsent.path, unsent.body) : send("/next", { voter });
    },
    vote: (vote) => send("/vote", vote),
    undo: (voter) => send("/undo", { voter, id: newId() }),
    ends: () => "No pair is left. You can close this page.",
  };
}

/** Votes stay in this browser: what was asked is in the file, and what was answered is saved as another. */
function packet(content) {
  let votes = [];
  const key = () => `minirlhf-packet-${content.name}-${voter}`;
  function state() {
    if (!store.set(key(), votes)) notice("This browser keeps nothing: save the file before you close the page.");
    return { ask: content.asks[votes.length] || null, done: votes.length, of: content.asks.length };
  }
  $("save").addEventListener("click", () => {
    const lines = votes.map((vote) => JSON.stringify(vote) + "\n").join("");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([lines], { type: "application/jsonl" }));
    link.download = `votes-${content.name}-${voter.replace(/[^\p{L}\p{N}]+/gu, "-")}.jsonl`;
    link.click();
  });
  return {
    async start() { votes = store.get(key()) || []; return state(); },
    async vote(vote) { votes.push({ ...vote, time: new Date().toISOString().slice(0, 19) + "+00:00" }); return state(); },
    async undo() { votes.pop(); return state(); },
    ends: () => "Save the file, and send it to whoever gave you this page.",
    saves: true,
  };
}

let voter = "", ask = null, since = 0, busy = true, done = 0;
const keeper = $("packet") ? packet(JSON.parse($("packet").textContent)) : server();

function notice(text) {
  $("notice").hidden = !text;
  $("notice").textContent = text;
}

function show(state) {
  ask = state.ask;
  done = state.done;
  $("start").hidden = true;
  $("task").hidden = !ask;
  $("end").hidden = !!ask;
  for (const button of document.querySelectorAll("[data-do=undo]")) button.disabled = !done;
  $("save").hidden = !keeper.saves;
  if (!ask) {
    $("end-text").textContent = `${done} answers. ${keeper.ends()}`;
    $("end").querySelector("h1").focus();
    busy = false;
    return;
  }
  const [a, b] = ask.summaries;
  $("place").textContent = visible(ask.place || "");
  $("title").textContent = visible(ask.title) || "The post";
  $("text").textContent = visible(ask.post);
  $("a").textContent = visible(a.text) || "(nothing)";
  $("b").textContent = visible(b.text) || "(nothing)";
  document.querySelectorAll(".cut").forEach((mark, side) => { mark.hidden = !ask.summaries[side].cut; });
  const together = state.wanted ? `, ${state.decided} of ${state.wanted} by all` : "";
  $("progress").textContent = state.of ? `${done + 1} of ${state.of}` : `${voter}: ${done} answered${together}`;
  $("status").textContent = `${done ? "Saved. " : ""}Pair ${done + 1}.`;
  $("post").scrollTop = 0;
  window.scrollTo(0, 0);
  $("title").focus({ preventScroll: true });
  since = performance.now();
  busy = false;
}

async function act(what) {
  if (busy || (what !== "undo" && (!ask || performance.now() - since < PAUSE)) || (what === "undo" && !done)) return;
  busy = true;
  if (what === "undo") return show(await keeper.undo(voter));
  const { pair, left, shown, rule, repeat } = ask;
  const seconds = Math.round((performance.now() - since) / 10) / 100;
  show(await keeper.vote({ id: newId(), voter, pair, left, choice: what, shown, rule, repeat, seconds }));
}

async function begin(name) {
  voter = name;
  store.set("minirlhf-voter", name);
  try { sessionStorage.setItem("voter", name); } catch { /* a reload will ask again */ }
  show(await keeper.start(name));
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || $("help").open || !$("start").hidden) return;
  if (event.key === "ArrowUp" || event.key === "ArrowDown") {
    if ($("post").scrollHeight > $("post").clientHeight) {
      $("post").scrollBy(0, event.key === "ArrowUp" ? -60 : 60);
      event.preventDefault();
    }
    return;
  }
  const what = KEYS[event.key] || KEYS[event.key.toLowerCase()];
  if (event.key === "?") $("help").showModal();
  else if (what) act(what);
  else return;
  event.preventDefault();
});
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-do]");
  if (button) act(button.dataset.do);
});
$("leave").addEventListener("click", () => {
  try { sessionStorage.removeItem("voter"); } catch { /* nothing was kept */ }
  location.reload();
});
$("help-button").addEventListener("click", () => $("help").showModal());
$("start").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = $("name").value.trim().replace(/\s+/g, " ");
  if (name) begin(name);
});

let known = null;
try { known = sessionStorage.getItem("voter"); } catch { /* asked for below */ }
if (known) begin(known);
else {
  $("name").value = store.get("minirlhf-voter") || "";
  $("start").hidden = false;
  $("name").focus();
}
