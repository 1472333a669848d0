// SPDX-License-Identifier: Apache-2.0
// The part of the image that comes from Debian: libraries and the three programs that the agent runs. No
// shell, no package manager.
import { join } from "node:path";
import { ARCHES, type Arch } from "./arch.ts";
import type { Debian } from "./debian.ts";
import { filesBelow, plainMode, Tree } from "./tree.ts";

/** `T` stands for the architecture's triplet. First match counts; what matches nothing is left out. */
const RULES: readonly (readonly [RegExp, "keep" | "drop"])[] = [
  // iconv is used by nobody, nor are the debugging helpers of libc, nor the rules of arptables and ebtables.
  [/^usr\/lib\/T\/(gconv|audit)\//, "drop"],
  [/^usr\/lib\/T\/(libBrokenLocale|libc_malloc_debug|libmemusage|libpcprofile|libthread_db|libtic)\b/, "drop"],
  [/^usr\/lib\/T\/xtables\/lib(arpt|ebt)_/, "drop"],
  [/^usr\/lib\/T\/.*\.so(\.[0-9.]+)?$/, "keep"],
  [/^usr\/lib64\/ld-/, "keep"],
  [/^usr\/lib\/ld-linux-aarch64\.so/, "keep"],
  [/^usr\/sbin\/(nft|xtables-(nft|legacy)-multi)$/, "keep"],
  [/^usr\/sbin\/ip6?tables-(nft|legacy)(-restore|-save)?$/, "keep"],
  [/^etc\/(protocols|services|os-release|debian_version)$/, "keep"],
  [/^usr\/lib\/os-release$/, "keep"],
  [/^usr\/share\/doc\/[^/]+(\/copyright)?$/, "keep"],
  [/^usr\/share\/common-licenses\//, "keep"],
];

/** Since usrmerge these are one with those below /usr; the packages of Debian 12 still hold both. */
const MERGED = ["bin", "lib", "lib64", "sbin"] as const;

/** The alternatives that postinst would have set up: plain names are iptables-nft. */
const ALTERNATIVES = ["iptables", "ip6tables"].flatMap((name) =>
  ["", "-restore", "-save"].map((verb) => `${name}${verb}`),
);

const PASSWD = "root:x:0:0:root:/root:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const GROUP = "root:x:0:\nnogroup:x:65534:\n";
const NSSWITCH = "passwd: files\ngroup: files\nhosts: files dns\nprotocols: files\nservices: files\n";

export function rootfsTree(arch: Arch, { root, packages }: Debian): Tree {
  const tree = new Tree();
  const { triplet } = ARCHES[arch];
  for (const { path, symlink } of filesBelow(root)) {
    const merged = MERGED.some((top) => path.startsWith(`${top}/`)) ? `usr/${path}` : path;
    const rule = RULES.find(([pattern]) => pattern.test(merged.replace(triplet, "T")));
    if (rule?.[1] !== "keep") continue;
    if (symlink !== undefined) tree.symlink(merged, symlink);
    else tree.file(merged, join(root, path), plainMode(join(root, path)));
  }
  for (const top of MERGED) tree.symlink(top, `usr/${top}`);
  for (const top of ["usr/bin", "usr/lib64"]) if (!tree.has(top)) tree.directory(top);
  for (const name of ALTERNATIVES) tree.symlink(`usr/sbin/${name}`, "xtables-nft-multi");
  tree.text("etc/passwd", PASSWD);
  tree.text("etc/group", GROUP);
  tree.text("etc/nsswitch.conf", NSSWITCH);
  for (const path of ["dev", "proc", "root", "run", "sys", "var/lib"]) tree.directory(path);
  tree.directory("tmp", 0o1777);
  tree.symlink("var/run", "/run");
  // Where scanners look for Debian packages in an image without dpkg.
  for (const { name, use, control } of packages) {
    if (use === "image") tree.text(`var/lib/dpkg/status.d/${name}`, control);
  }
  return tree;
}
