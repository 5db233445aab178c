// Dark or light: what the person chose, else what the system prefers.
const button = () => document.getElementById("theme");

function apply(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  button()?.setAttribute("aria-pressed", String(dark));
}

export function toggleTheme() {
  const dark = document.documentElement.dataset.theme !== "dark";
  localStorage.setItem("theme", dark ? "dark" : "light");
  apply(dark);
}

const system = matchMedia("(prefers-color-scheme: dark)");
const kept = localStorage.getItem("theme");
apply(kept ? kept === "dark" : system.matches);
system.addEventListener("change", () => { if (!localStorage.getItem("theme")) apply(system.matches); });
