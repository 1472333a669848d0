# For tools that know only node-gyp: `npm ci` runs package.json's install script, which is the same
# command, because node-gyp wants to download Node's headers even when it compiles nothing itself.
{
  "targets": [{
    "target_name": "ambient",
    "type": "none",
    "actions": [{
      "action_name": "cmake-js",
      "inputs": ["CMakeLists.txt"],
      "outputs": ["<(module_root_dir)/build/cmake/never-made-so-always-asked"],
      "action": ["npx", "--no-install", "cmake-js", "compile", "-O", "build/cmake"],
    }],
  }],
}
