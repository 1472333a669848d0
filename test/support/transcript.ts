// SPDX-License-Identifier: Apache-2.0
// Blocks of a document that hold what commands really said. Every number that another run would have otherwise is
// written as one that stays, in as many characters: columns keep their places.

/** Begins a block; what follows up to the fence's end is the transcript of that name. */
const BLOCK = /<!-- transcript: ([a-z0-9-]+) -->\n```[a-z]*\n[\s\S]*?\n```\n/g;

/** The document with these transcripts in place of those that it holds. @throws Error for a name that only one side knows */
export function withTranscripts(document: string, transcripts: ReadonlyMap<string, string>): string {
  const left = new Set(transcripts.keys());
  const changed = document.replace(BLOCK, (_block, name: string) => {
    const text = transcripts.get(name);
    if (text === undefined) throw new Error(`nothing makes the transcript ${name}`);
    if (!left.delete(name)) throw new Error(`the document holds the transcript ${name} twice`);
    return `<!-- transcript: ${name} -->\n\`\`\`\n${text.trimEnd()}\n\`\`\`\n`;
  });
  if (left.size > 0) throw new Error(`the document holds no transcript ${[...left].join(", ")}`);
  return changed;
}

/** Names by which a run's own things are known, longest first, and what they are in the document. */
export type Stand = readonly (readonly [found: string | RegExp, shown: string])[];

/** The text as another run would have it too. */
export function settled(text: string, stand: Stand): string {
  const own = stand.reduce((shorter, [found, shown]) => shorter.replaceAll(found, shown), text);
  return (
    own
      // 2026-11-28T10:00:00.000Z, and 10:00:00.000 in tables of decisions, whose columns are as wide as their times
      .replace(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z/g, "2026-11-28T10:00:00.000Z")
      .replace(/^ {2}\d\d:\d\d:\d\d\.\d{3}.*$/gm, (line) => `  10:00:00.000${line.slice(14).replace(/ {2,}/g, "  ")}`)
      .replace(/ {2,}\d+(?:\.\d+)? ms$/gm, "  3.0 ms")
      .replace(/\b\d+(?:\.\d+)? ms\b/g, "3.0 ms")
      .replace(/\b(watch|next try in|last) \d+[dhms](\d+[dhms])?/g, "$1 8s")
      .replace(/ (?:\d+[dhms]){1,2}$/gm, " 8s")
      // Ages, with the blanks that fill their columns.
      .replace(/\b(?:\d+[dhms]){1,2} (?= *[A-Za-z0-9.[-]|$)( *)/gm, (all) => padded("8s", all))
      .replace(/\bup (?:\d+[dhms]){1,2} +/g, "up 8s  ")
      .replace(/\b\d+ times\b/g, "3 times")
      .replace(/\b(\d+)x\b/g, "3x")
      .replace(/after \d+ milliseconds/g, "after 1001 milliseconds")
      // Inodes of network namespaces, processes, ports of clients and those that a proof calls.
      .replace(/\b40265\d{5}\b/g, "4026532711")
      .replace(/\/proc\/\d+\//g, "/proc/4711/")
      .replace(/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g, "6f0c2a3e-0000-4000-8000-000000000000")
      .replace(/(\d|\]|\)):([2-5]\d|6[0-5])\d{3}\b/g, "$1:40000")
      .replace(/\bkernel \d\S+/g, "kernel 6.18.0")
      .replace(/\brv \d+/g, "rv 42")
      .replace(/[ \t]+$/gm, "")
  );
}

function padded(text: string, all: string): string {
  return all.endsWith(" ") ? text.padEnd(all.length) : text;
}
