// Numbers and times as people read them. Owns wording and units; knows no element and no call.

const STEPS = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** A size as "1.4 MiB"; exact below 1 KiB. */
export function size(bytes) {
  if (bytes === null || bytes === undefined) return "";
  if (bytes === 1) return "1 byte";
  const step = bytes < 1 ? 0 : Math.min(Math.floor(Math.log2(bytes) / 10), STEPS.length - 1);
  const value = bytes / 1024 ** step;
  const text =
    step === 0
      ? String(bytes)
      : value < 9.95
        ? value.toFixed(1)
        : Math.round(value).toLocaleString("en");
  return `${text} ${STEPS[step]}`;
}

/** A size to the byte. */
export const exactSize = (bytes) => `${count(bytes)} bytes`;

/** A number with its thousands apart. */
export const count = (number) => number.toLocaleString("en");

/** "1 file", "2 files". */
export function counted(number, one, many = one + "s") {
  return `${count(number)} ${number === 1 ? one : many}`;
}

// One form in every browser, whatever its language: the page is in English, and a list of files
// reads best with the year first.
const two = (number) => String(number).padStart(2, "0");

/** A time of the API as "2025-10-08 18:24" in the reader's own time zone. */
export function when(iso, seconds = false) {
  const time = parse(iso);
  if (!time) return "";
  return `${day(iso)} ${two(time.getHours())}:${two(time.getMinutes())}${seconds ? ":" + two(time.getSeconds()) : ""}`;
}

/** The day of a time, "2025-10-08". */
export function day(iso) {
  const time = parse(iso);
  return time ? `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())}` : "";
}

/** The time of day, "18:24". */
export const clock = (iso) => when(iso).slice(-5);

/** A day of a month in words: "Wednesday 8". */
export function dayInWords(iso) {
  const time = parse(iso);
  return `${time.toLocaleDateString("en-GB", { weekday: "long" })} ${time.getDate()}`;
}

/** A month in words: "October 2025". */
export const monthInWords = (iso) =>
  parse(iso).toLocaleDateString("en-GB", { month: "long", year: "numeric" });

/** How long ago, or until when: "3 minutes ago", "in 57 minutes". */
export function relative(iso, now = Date.now()) {
  const seconds = Math.round((parse(iso) - now) / 1000);
  const text = duration(Math.abs(seconds));
  if (Math.abs(seconds) < 5) return "now";
  return seconds < 0 ? `${text} ago` : `in ${text}`;
}

const UNITS = [
  [31557600, "year"],
  [2629800, "month"],
  [86400, "day"],
  [3600, "hour"],
  [60, "minute"],
  [1, "second"],
];

/** A duration by its largest unit. */
export function duration(seconds) {
  const [length, name] = UNITS.find(([unit]) => seconds >= unit) ?? [1, "second"];
  return counted(Math.floor(seconds / length), name);
}

/** The reader's time zone by name. */
export const zone = () => Intl.DateTimeFormat().resolvedOptions().timeZone;

/** A time with its zone spelled out, for titles. */
export const exactTime = (iso) => `${when(iso, true)} (${zone()}), ${iso}`;

function parse(iso) {
  const time = iso ? new Date(iso) : null;
  return time && !Number.isNaN(time.valueOf()) ? time : null;
}

// What people call them; the API has the names that blkid gives.
const NAMES = {
  LVM2_member: "LVM",
  btrfs: "Btrfs",
  crypto_LUKS: "LUKS",
  exfat: "exFAT",
  linux_raid_member: "Linux RAID",
  ntfs: "NTFS",
  vfat: "FAT",
  xfs: "XFS",
};

/** A file system's name as people know it. */
export const called = (filesystem) => NAMES[filesystem] ?? filesystem;
