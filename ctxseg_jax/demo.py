r"""Shows on a local page what a trained network makes of a photograph.

  pip install -e ".[demo]"
  python -m ctxseg_jax.demo --workdir runs/camvid

Open the address that it prints and drop a photograph on the page. Nothing
leaves the machine, and what was dropped is deleted when the command ends.
"""

from collections.abc import Sequence
import contextlib
import html
import importlib.util
import os
import socket
import tempfile
import threading

from absl import flags

from ctxseg_jax import commands
from ctxseg_jax import errors
from ctxseg_jax import experiment
from ctxseg_jax import files
from ctxseg_jax.deployment import answers

_ADDRESS = "127.0.0.1"  # Other machines cannot reach it.


@contextlib.contextmanager
def _serving(answer, title: str, port: int):
  """Serves the page while the context is open."""
  with tempfile.TemporaryDirectory(prefix="ctxseg_demo_") as folder:
    # Read when gradio is imported.
    os.environ.update(
        GRADIO_TEMP_DIR=folder,
        GRADIO_ANALYTICS_ENABLED="False",
        HF_HUB_OFFLINE="1",
        NO_PROXY=_ADDRESS,
    )
    import gradio as gr

    def respond(path):
      if path is None:
        return None, ""
      try:
        return answer(path)
      except errors.UserError as e:
        # It is shown as HTML, and may have a file's name in it.
        raise gr.Error(html.escape(str(e)), print_exception=False) from e

    with gr.Blocks(title=title, analytics_enabled=False) as page:
      gr.Markdown(f"# {title}")
      with gr.Row():
        photograph = gr.Image(
            label="Photograph",
            type="filepath",
            image_mode=None,  # The file as it is.
            sources=["upload", "clipboard"],
            elem_id="photograph",
        )
        with gr.Column():
          picture = gr.Image(
              label="Prediction",
              format="png",
              interactive=False,
              buttons=["download", "fullscreen"],  # Not "share".
              elem_id="prediction",
          )
          table = gr.HTML(elem_id="classes")
      photograph.change(respond, photograph, [picture, table])
    fonts = dict(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    page.launch(
        server_name=_ADDRESS,
        server_port=port,
        share=False,
        quiet=True,
        inbrowser=False,
        prevent_thread_lock=True,
        ssr_mode=False,
        footer_links=[],
        theme=gr.themes.Default(**fonts),  # No fonts of other servers.
    )
    try:
      yield
    finally:
      page.close(verbose=False)


def _require_free(port: int) -> None:
  """Refuses a port that another program listens on."""
  with socket.socket() as s:
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
      s.bind((_ADDRESS, port))
    except OSError as e:
      raise errors.UserError(
          f"--port: {port} of {_ADDRESS}: {e.strerror}; choose another, such as"
          f" --port {port + 1}"
      ) from e


def define_flags() -> None:
  """Defines the flags of the command."""
  flags.DEFINE_string("workdir", None, "Work dir of train.py.")
  which = "'best', 'last' or a step that is kept."
  flags.DEFINE_string("checkpoint", "best", which)
  flags.DEFINE_integer(
      "port", 7860, "Of the page.", lower_bound=1024, upper_bound=65534
  )
  flags.mark_flag_as_required("workdir")


def main(argv: Sequence[str], views: Sequence[flags.FlagHolder] = ()) -> None:
  """Runs the command, until it is interrupted."""
  del argv
  if importlib.util.find_spec("gradio") is None:
    raise errors.UserError(
        "gradio is not installed; run `pip install -e '.[demo]'`"
    )
  port = flags.FLAGS.port
  _require_free(port)
  trained = experiment.load(flags.FLAGS.workdir, flags.FLAGS.checkpoint)
  name = files.printable(trained.workdir.name)
  title = f"{name}, step {trained.step} ({trained.spec.name})"
  answer = answers.Answers(trained, trained.settings_with(views)).answer
  with _serving(answer, title, port):
    print(f"http://{_ADDRESS}:{port} (Ctrl-C ends it)", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
      threading.Event().wait()


if __name__ == "__main__":
  # Not on import: a process may import several commands.
  define_flags()
  shared = commands.define_views()
  commands.run(lambda argv: main(argv, shared))
