# In Colab, or in any kernel that lacks it: install spd_mini and leave torch and the rest alone.
import importlib.util
import os
import subprocess
import sys

if importlib.util.find_spec("spd_mini") is None:
    source = "git+https://github.com/spd-mini/spd-mini@v0.1.0"
    needed = [os.environ.get("SPD_MINI_SOURCE", source)]
    needed += [name for name in ("scipy", "safetensors") if importlib.util.find_spec(name) is None]
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", *needed], check=True)
    importlib.invalidate_caches()
