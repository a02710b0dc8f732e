// What the page does by itself: the theme, citations, and later the charts. No state of the program lives here.
(() => {
  const KEY = "llmbench-theme";
  const system = matchMedia("(prefers-color-scheme: dark)");
  const wanted = () => {
    const chosen = localStorage.getItem(KEY);
    return chosen ? chosen === "dark" : system.matches;
  };
  const paint = () => document.body && document.body.classList.toggle("dark", wanted());
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
    }
  });
})();
