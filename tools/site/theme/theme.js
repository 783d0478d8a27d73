// The button that turns dark and light. Without it, or without scripts, pages are as the system asks for. `theme` in the
// browser's storage is also what the pages of the API use.
const root = document.documentElement;
const wanted = matchMedia("(prefers-color-scheme: dark)");

function stored() {
  try {
    return localStorage.getItem("theme");
  } catch {
    return null; // Storage is off.
  }
}

function apply() {
  const theme = stored() ?? (wanted.matches ? "dark" : "light");
  root.dataset.theme = root.dataset.pfTheme = theme;
  const button = document.getElementById("theme");
  if (button) button.textContent = theme === "dark" ? "Light" : "Dark";
}

// Before anything is drawn.
apply();
wanted.addEventListener("change", apply);
addEventListener("DOMContentLoaded", () => {
  const button = document.getElementById("theme");
  button.hidden = false;
  button.addEventListener("click", () => {
    localStorage.setItem("theme", root.dataset.theme === "dark" ? "light" : "dark");
    apply();
  });
  apply();
});
