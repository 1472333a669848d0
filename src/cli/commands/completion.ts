// SPDX-License-Identifier: Apache-2.0
import { Argument } from "commander";
import { openSession, type Program } from "../command.ts";
import { globalsOf } from "../globals.ts";
import { describeExamples } from "../help.ts";

/** How long a shell's user waits for names of pods, in ms. */
const PODS_MS = 400;

/**
 * The shells ask this program for each completion, as `ambient-cni complete -- WORD...`: one line per candidate, its
 * description behind a tab. So what is completed is always what this version takes, and pods by their names; where it
 * has none, files are.
 */
const SCRIPTS: Readonly<Record<string, string>> = {
  bash: `# bash completion of ambient-cni; in ~/.bashrc: source <(ambient-cni completion bash)
_ambient_cni() {
  local line IFS=$'\\n'
  COMPREPLY=()
  for line in $("\${COMP_WORDS[0]}" complete -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null); do
    COMPREPLY+=("\${line%%$'\\t'*}")
  done
}
complete -o default -F _ambient_cni ambient-cni
`,
  zsh: `#compdef ambient-cni
# zsh completion of ambient-cni; in ~/.zshrc: source <(ambient-cni completion zsh)
_ambient_cni() {
  local line
  local -a candidates
  for line in "\${(@f)$("\${words[1]}" complete -- "\${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
    [[ -n "$line" ]] && candidates+=("\${\${line%%$'\\t'*}//:/\\\\:}:\${line#*$'\\t'}")
  done
  if (( $#candidates )); then _describe 'ambient-cni' candidates; else _files; fi
}
compdef _ambient_cni ambient-cni
`,
  fish: `# fish completion of ambient-cni: ambient-cni completion fish > ~/.config/fish/completions/ambient-cni.fish
function __ambient_cni
    set -l words (commandline -opc) (commandline -ct)
    $words[1] complete -- $words[2..-1] 2>/dev/null
end
complete -c ambient-cni -f -a '(__ambient_cni)'
complete -c ambient-cni -n 'not count (__ambient_cni) >/dev/null' -F
`,
};

/** `completion SHELL`, and the hidden command that its scripts call. */
export function addCompletion({ root, env, done }: Program): void {
  const command = root
    .command("completion")
    .summary("completion for a shell: commands, options, names of pods")
    .description("Completion for a shell: commands, options, names of pods.")
    .addArgument(new Argument("<shell>", "which one").choices(Object.keys(SCRIPTS)))
    .action((shell: string) => {
      env.stdout.write(SCRIPTS[shell] ?? "");
      done(0);
    });
  describeExamples(command, [
    "ambient-cni completion bash            # source <(...) it in ~/.bashrc",
    "ambient-cni completion zsh             # the same in ~/.zshrc",
    "ambient-cni completion fish            # into ~/.config/fish/completions/ambient-cni.fish",
  ]);
  const hidden = root
    .command("complete [words...]", { hidden: true })
    .description("Candidates for the last word.")
    .action(async (words: readonly string[]) => {
      const { complete } = await import("../completion.ts");
      const candidates = await complete(root, words, {
        pods: async () => {
          const agent = await openSession(env, globalsOf(hidden, env)).agent(PODS_MS);
          // A completion has no place for an error: without an agent there are no names.
          const report = await agent.read("pods").catch(() => undefined);
          return (report?.pods ?? []).map(({ namespace, name, uid }) => (name === null ? uid : `${namespace}/${name}`));
        },
      });
      for (const { value, description } of candidates) env.stdout.write(`${value}\t${description}\n`);
      done(0);
    });
}
