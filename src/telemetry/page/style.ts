// SPDX-License-Identifier: Apache-2.0

export const STYLE = `
:root { color-scheme: light dark; --line: #8884; --dim: #777; --ok: #1a7f37; --warn: #9a6700; --error: #cf222e; }
@media (prefers-color-scheme: dark) { :root { --dim: #999; --ok: #3fb950; --warn: #d29922; --error: #f85149; } }
body { font: 14px/1.45 system-ui, sans-serif; margin: 1.5rem auto; max-width: 76rem; padding: 0 1rem; }
h1 { font-size: 1.3rem; margin: 0; }
h2 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
header p { margin: .2rem 0; color: var(--dim); }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .2rem .9rem .2rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; color: var(--dim); }
td { overflow-wrap: break-word; }
td:last-child { overflow-wrap: anywhere; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
.ok { color: var(--ok); } .warn { color: var(--warn); } .error { color: var(--error); } .unknown { color: var(--dim); }
.banner { border: 1px solid var(--warn); padding: .4rem .7rem; margin: .8rem 0; }
.quiet { color: var(--dim); }
input { font: inherit; padding: .1rem .4rem; }
progress { width: 12rem; }
[hidden] { display: none; }
`;
