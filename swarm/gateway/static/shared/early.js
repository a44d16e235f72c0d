// Runs before the first paint, so that a chosen theme does not flash. A classic script: modules are deferred.
const theme = localStorage.getItem("swarm.theme");
if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
