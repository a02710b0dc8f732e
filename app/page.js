// What the page does by itself: the theme, which conversation this tab has, its address, keys, citations, copying, the read-out
// of charts. No state of the program lives here.
(() => {
  // A browser may refuse its storage, by a throw at each touch: the page works without, and forgets with the tab.
  const recall = (storage, key) => { try { return storage().getItem(key); } catch { return null; } };
  const keep = (storage, key, text) => { try { storage().setItem(key, text); return true; } catch { return false; } };

  const KEY = "llmbench-theme";
  const system = matchMedia("(prefers-color-scheme: dark)");
  let theme = recall(() => localStorage, KEY);
  const wanted = () => (theme ? theme === "dark" : system.matches);
  const tell = (frame) => frame.contentWindow.postMessage(wanted() ? "dark" : "light", "*");
  const paint = () => {
    document.body.classList.toggle("dark", wanted());
    document.querySelectorAll("#page-reports iframe").forEach(tell);
  };
  document.addEventListener("load", (event) => event.target.matches?.("#page-reports iframe") && tell(event.target), true);
  // Gradio sets its own idea of the theme once it has mounted: keep ours.
  const guard = () => new MutationObserver(() => {
    if (document.body.classList.contains("dark") !== wanted()) paint();
  }).observe(document.body, { attributes: true, attributeFilter: ["class"] });
  const start = () => { paint(); guard(); };
  document.body ? start() : addEventListener("DOMContentLoaded", start);
  system.addEventListener("change", paint);

  document.addEventListener("click", (event) => {
    if (event.target.closest("#theme")) {
      theme = wanted() ? "light" : "dark";
      keep(() => localStorage, KEY, theme);
      paint();
      return;
    }
    const copy = event.target.closest(".copy");
    if (copy) {
      navigator.clipboard.writeText(copy.closest(".code").querySelector("code").textContent).then(
        () => { copy.textContent = "Copied"; }, () => { copy.textContent = "Not copied"; },
      ).finally(() => setTimeout(() => { copy.textContent = "Copy"; }, 1500));
      return;
    }
    const cite = event.target.closest("button.cite");
    if (cite) {
      const box = cite.closest(".turn")?.querySelector(".passages");
      const passage = box?.querySelector(`li[data-n="${CSS.escape(cite.dataset.cite)}"]`);
      if (!passage) return;
      box.querySelector("input").checked = true;
      passage.scrollIntoView({ block: "nearest", behavior: "smooth" });
      passage.classList.remove("flash");
      void passage.offsetWidth; // restarts the animation
      passage.classList.add("flash");
      return;
    }
    if (!event.target.closest(".opener")) event.target.closest(".passages li")?.classList.toggle("open");
    const download = event.target.closest(".download");
    if (download) {
      const link = document.createElement("a"), bytes = Uint8Array.from(atob(download.dataset.bytes), (c) => c.charCodeAt(0));
      link.href = URL.createObjectURL(new Blob([bytes], { type: "text/html" }));
      link.download = download.dataset.name;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    }
  });

  const read = (chart, event) => {
    const svg = chart.querySelector("svg"), box = svg.getBoundingClientRect(), out = chart.querySelector(".readout");
    const x = (event.clientX - box.left) * svg.viewBox.baseVal.width / box.width;
    const lines = JSON.parse(chart.dataset.lines);
    const nearest = lines.map((line) => line.at.reduce((a, b) => (Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a)));
    const at = nearest.reduce((a, b) => (Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a));
    out.replaceChildren(`${chart.dataset.x} ${at[2]}`);
    lines.forEach((line, i) => {
      if (at[0] < line.at[0][0] - 1 || at[0] > line.at.at(-1)[0] + 1) return; // this line does not reach here
      const row = document.createElement("div"), dot = document.createElement("i");
      dot.style.background = `var(--${line.colour})`;
      row.append(dot, `${line.name}  ${nearest[i][3]}`);
      out.append(row);
    });
    const cursor = svg.querySelector(".cursor");
    cursor.setAttribute("x1", at[0]);
    cursor.setAttribute("x2", at[0]);
    cursor.style.visibility = "visible";
    out.hidden = false;
    const left = box.left - chart.getBoundingClientRect().left + at[0] * box.width / svg.viewBox.baseVal.width;
    out.style.left = `${Math.min(left + 12, chart.clientWidth - out.offsetWidth - 8)}px`;
  };
  let shown = null;
  document.addEventListener("pointermove", (event) => {
    const chart = event.target.closest?.(".chart");
    if (shown && shown !== chart) {
      shown.querySelector(".readout").hidden = true;
      shown.querySelector(".cursor").style.visibility = "hidden";
    }
    shown = chart || null;
    if (chart) read(chart, event);
  });

  // Which conversation this tab has. The app keeps conversations; the browser keeps their ids: one a tab, in the order of use.
  const PLACE = "llmbench";
  const from = (storage, otherwise) => { try { return JSON.parse(recall(storage, PLACE)) ?? otherwise; } catch { return otherwise; } };
  const into = (storage, value) => keep(storage, PLACE, JSON.stringify(value));
  const hold = (id, wait = 700) => new Promise((answer) => {
    if (!navigator.locks) { answer(true); return; }
    const patience = AbortSignal.timeout(wait);
    navigator.locks.request(`${PLACE}-${id}`, { signal: patience }, () => { answer(true); return new Promise(() => {}); })
      .catch((error) => answer(error.name === "SecurityError")); // whoever has no storage has no locks, and nothing to share
  });
  const free = async () => {
    const locks = await navigator.locks?.query().catch(() => null);
    const held = (locks?.held ?? []).map((lock) => lock.name);
    return (from(() => localStorage, {}).conversations ?? []).find((id) => !held.includes(`${PLACE}-${id}`));
  };
  const fresh = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const identify = async () => {
    const own = from(() => sessionStorage, {});
    let id = own.id ?? await free(), copy = null;
    if (id && own.left) hold(id, 60000); // a reload: the page before may still be letting go
    else if (id && !await hold(id)) [copy, id] = [own.id ?? null, null]; // another tab has it: this one is its duplicate
    if (!id) { id = fresh(); await hold(id); }
    const others = (from(() => localStorage, {}).conversations ?? []).filter((one) => one !== id);
    const here = into(() => sessionStorage, { id, app: window.llmbenchApp });
    addEventListener("pagehide", () => into(() => sessionStorage, { id, app: window.llmbenchApp, left: true }));
    const kept = into(() => localStorage, { conversations: [id, ...others].slice(0, 50) });
    return [{ id, copy, kept: here || kept, restarted: Boolean(own.app) && own.app !== window.llmbenchApp }];
  };

  // The address: a link to a run, a report or a passage, and the way back. A page says in data-address what it shows.
  const TITLES = { compare: "Compare", documents: "Documents", runs: "Runs", reports: "Reports", vote: "Vote" };
  const tabs = () => [...document.querySelectorAll(".pages .tab-container > button[role=tab]")];
  const current = () => {
    const chosen = tabs().find((tab) => tab.getAttribute("aria-selected") === "true");
    const name = Object.keys(TITLES).find((key) => TITLES[key] === chosen?.textContent.trim());
    if (!name) return null;
    const at = document.querySelector(`#page-${name} [data-address]`)?.dataset.address;
    return { name, address: at ? `${name}/${at}` : name };
  };
  // A link that a person typed or a mail program wrote may escape other letters, and name runs in another order.
  const plain = (address) => {
    const [page, ...rest] = address.split("/");
    try { return [page, ...decodeURIComponent(rest.join("/")).split(",").sort()].join(); } catch { return address; }
  };
  const same = (one, other) => one !== null && other !== null && plain(one) === plain(other);
  let written = null, bound = location.hash.length > 1 ? location.hash.slice(1) : null;
  const name = (now) => {
    const what = now.address.split("/").slice(1).map(decodeURIComponent).filter(Boolean).join(", ");
    const title = [what, TITLES[now.name], "llmbench"].filter(Boolean).join(" · ");
    if (document.title !== title) document.title = title; // Gradio writes its own, at any time of a slow start
  };
  const note = () => {
    const now = current();
    if (!now) return;
    if (bound !== null && !same(now.address, bound)) return; // on the way there: an index may have to be opened first
    bound = null; // arrived
    name(now);
    if (same(now.address, written)) return;
    const first = written === null, sub = written?.split("/")[0] === now.name && written === now.name;
    written = now.address;
    if (same(location.hash.slice(1), now.address) || (first && now.address === "compare" && !location.hash)) return;
    history[first || sub ? "replaceState" : "pushState"](null, "", `#${now.address}`); // what a tab shows first is no step of its own
  };
  const go = () => {
    const now = current(), to = location.hash.slice(1) || "compare";
    if (!now) { setTimeout(go, 100); return; } // the page has no tabs yet
    if (same(to, now.address)) { bound = null; return; }
    bound = written = to;
    document.querySelector(".router")?.dispatchEvent(new CustomEvent("go", { detail: to }));
  };
  // Whoever does something else meanwhile, or an address that names nothing: the page says where it is again.
  for (const kind of ["pointerdown", "keydown"]) addEventListener(kind, () => { bound = null; }, true);
  const arrive = () => { if (location.hash.length > 1) setTimeout(go, 300); };
  window.llmbench = { identify, arrive };
  addEventListener("popstate", go);
  addEventListener("hashchange", go);

  // Gradio's page has no landmarks, and its folds say nothing about themselves.
  const describe = () => {
    document.querySelector("main.contain")?.setAttribute("role", "presentation"); // it holds the head of the page too
    document.querySelector(".pages")?.setAttribute("role", "main");
    document.querySelector(".top")?.setAttribute("role", "banner");
    document.querySelector(".pages > .tab-wrapper")?.setAttribute("role", "navigation");
    document.querySelector(".pages > .tab-wrapper")?.setAttribute("aria-label", "Pages");
    document.querySelectorAll(".said").forEach((one) => one.setAttribute("aria-live", "polite"));
    document.querySelectorAll(".picker input").forEach((box) => { if (box.title !== box.value) box.title = box.value; });
    document.querySelectorAll(".settings > button").forEach((button) => {
      const open = String(button.classList.contains("open"));
      if (button.getAttribute("aria-expanded") !== open) button.setAttribute("aria-expanded", open);
    });
  };
  let due = false;
  const later = () => {
    if (due) return;
    due = true;
    setTimeout(() => { due = false; describe(); note(); }, 150);
  };
  const watch = () => {
    const changes = new MutationObserver(later);
    changes.observe(document.head, { subtree: true, childList: true, characterData: true });
    changes.observe(document.body, {
      subtree: true, childList: true, attributes: true, attributeFilter: ["class", "aria-selected", "data-address"],
    });
    later();
  };
  document.body ? watch() : addEventListener("DOMContentLoaded", watch);
  document.addEventListener("pointerover", (event) => {
    const box = event.target.closest?.(".picker input");
    if (box) box.title = box.value;
  });
  document.addEventListener("keydown", (event) => {
    const stop = document.querySelector("#stop");
    if (event.key !== "Escape" || !stop || stop.offsetParent === null) return;
    if (event.target.closest?.(".picker") && event.target.getAttribute("aria-expanded") === "true") return; // closes its list
    stop.click();
  });
})();
