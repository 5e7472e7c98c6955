// Times and sizes as people read them; the same rules as gui/figures.py.

const SPACE = "\u00a0";

/** 190 → 3 min */
export function duration(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))}${SPACE}s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 90) return `${minutes}${SPACE}min`;
  const hours = Math.floor(minutes / 60);
  if (hours >= 48) return `${Math.floor(hours / 24)}${SPACE}d${hours % 24 && hours < 240 ? ` ${hours % 24}${SPACE}h` : ""}`;
  return `${hours}${SPACE}h${minutes % 60 && hours < 10 ? ` ${minutes % 60}${SPACE}min` : ""}`;
}

/** Bytes: 128000000 → 128 MB */
export function size(value) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  while (value >= 1000 && units.length > 1) {
    value /= 1000;
    units.shift();
  }
  return `${value.toFixed(["GB", "TB"].includes(units[0]) && value < 10 ? 1 : 0)}${SPACE}${units[0]}`;
}
