"use strict";
(() => {
  const one = (selector) => document.querySelector(selector);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const frames = all(".frame");
  if (!frames.length) return;
  const [viewer, stage, slider, play, compare, divider, split] =
    ["#viewer", "#stage", "#when", "#play", "#compare", "#divider", "#split"].map(one);
  const marks = all(".mark"), rows = all("[data-row]"), last = frames.length - 1, pause_ms = 1300;
  let now = last, timer = 0;

  function show(wanted) {
    now = Math.max(0, Math.min(last, wanted));
    const { label, area, range, observed, share } = frames[now].dataset;
    frames.forEach((frame, i) => frame.classList.toggle("on", i === now));
    marks.forEach((mark, i) => mark.classList.toggle("on", i === now));
    rows.forEach((row) => row.classList.toggle("on", Number(row.dataset.row) === now));
    const texts = { date: label, area, range, observed, "tag-now": label };
    for (const [id, text] of Object.entries(texts)) one("#" + id).textContent = text;
    one("#share").style.width = share + "%";
    for (const end of ["x1", "x2"]) one("#cursor").setAttribute(end, parseFloat(marks[now].style.left));
    slider.value = now;
    slider.setAttribute("aria-valuetext", `${label}, ${area}, ${observed} observed`);
    slider.style.setProperty("--done", (last ? (100 * now) / last : 100) + "%");
    viewer.dataset.now = now;
  }

  function halt() {
    clearInterval(timer);
    timer = 0;
    play.setAttribute("aria-pressed", "false");
    play.setAttribute("aria-label", "Play all dates");
    one("#now").setAttribute("aria-live", "polite");
  }

  function toggle() {
    if (timer) return halt();
    play.setAttribute("aria-pressed", "true");
    play.setAttribute("aria-label", "Pause");
    one("#now").setAttribute("aria-live", "off");
    if (now === last) show(0);
    timer = setInterval(() => show(now === last ? 0 : now + 1), pause_ms);
  }

  function against() {
    const chosen = compare.value === "" ? -1 : Number(compare.value);
    frames.forEach((frame, i) => frame.classList.toggle("then", i === chosen));
    split.hidden = chosen < 0;
    if (chosen >= 0) one("#tag-then").textContent = frames[chosen].dataset.label;
  }

  const keys = {
    ArrowLeft: () => show(now - 1), ArrowDown: () => show(now - 1),
    ArrowRight: () => show(now + 1), ArrowUp: () => show(now + 1),
    PageDown: () => show(now - 5), PageUp: () => show(now + 5),
    Home: () => show(0), End: () => show(last), " ": toggle,
  };

  slider.addEventListener("input", () => { halt(); show(Number(slider.value)); });
  slider.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || !keys[event.key]) return;
    event.preventDefault();
    if (event.key !== " ") halt();
    keys[event.key]();
  });
  document.addEventListener("keydown", (event) => {
    const elsewhere = event.target === document.body || event.target === stage;
    if (!elsewhere || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    halt();
    keys[event.key]();
  });
  document.addEventListener("click", (event) => {
    const target = event.target.closest("[data-go]");
    if (!target) return;
    halt();
    show(Number(target.dataset.go));
    if (target.classList.contains("link")) { viewer.scrollIntoView(); slider.focus({ preventScroll: true }); }
  });
  play.addEventListener("click", toggle);
  compare.addEventListener("change", against);
  divider.addEventListener("input", () => stage.style.setProperty("--cut", divider.value + "%"));
  one("#outlines").addEventListener("change", (event) => stage.classList.toggle("plain", !event.target.checked));

  show(last);
  against();
})();
