// What the page does by itself: the theme, citations, the read-out of charts, saving a report. No state of the program lives here.
(() => {
  const KEY = "llmbench-theme";
  const system = matchMedia("(prefers-color-scheme: dark)");
  const wanted = () => {
    const chosen = localStorage.getItem(KEY);
    return chosen ? chosen === "dark" : system.matches;
  };
  const tell = (frame) => frame.contentWindow.postMessage(wanted() ? "dark" : "light", "*");
  const paint = () => {
    document.body.classList.toggle("dark", wanted());
    document.querySelectorAll("#page-reports iframe").forEach(tell);
  };
  document.addEventListener("load", (event) => event.target.matches?.("#page-reports iframe") && tell(event.target), true);
  // Gradio sets its own idea of the theme once it has mounted: keep ours.
  const keep = () => new MutationObserver(() => {
    if (document.body.classList.contains("dark") !== wanted()) paint();
  }).observe(document.body, { attributes: true, attributeFilter: ["class"] });
  const start = () => { paint(); keep(); };
  document.body ? start() : addEventListener("DOMContentLoaded", start);
  system.addEventListener("change", paint);

  document.addEventListener("click", (event) => {
    if (event.target.closest("#theme")) {
      localStorage.setItem(KEY, wanted() ? "light" : "dark");
      paint();
      return;
    }
    const cite = event.target.closest(".cite");
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
      const frame = document.querySelector("#page-reports iframe");
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([frame.srcdoc], { type: "text/html" }));
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
})();
