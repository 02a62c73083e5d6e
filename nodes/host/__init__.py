"""Everything that touches the host's internals. No other folder imports comfy or folder_paths.

Written for ComfyUI 0.3.75 and later; what differs between versions is looked up when used.
"""

from . import sound
from .crews import with_crew
from .decoding import decoded
from .decoding_run import Decoding
from .farm import FarmProgress, make_room
from .files import find_file, find_model, list_files, list_models, register_assets
from .finished import remember_sections
from .frame_streams import AUTO, GRIDS
from .images import encoded_images, resize
from .interrupt import poll
from .jobs import affine, condition, model_path, output_path, solver_name
from .keeping import check_locks, farm_store, section_store
from .loading import DTYPES, describe, load_model, order_trained
from .lora import apply_lora
from .memory import begin_plan
from .pictures import on_page, temporary_path
from .progress import PlanProgress, show_frames
from .route import serve_pictures
from .runs import say, summary, video_index
from .sampling import (
    geometry,
    guidance_with,
    is_framepack,
    latent_format,
    outside_noise,
    sampler_named,
    sampler_of,
    zeroed,
)
from .section_sampler import HostSampler
from .step_cache import with_step_cache
from .text import load_text_encoder
from .titles import title_of
from .trained import check_solver, schedule_warning, warn_of_positions, warn_of_schedule
from .training_places import (
    cache_of,
    check_name,
    folder_state,
    learn,
    run_place,
    training_device,
    training_folder,
)
from .treatments import (
    check_codebook,
    check_treatment,
    codebook_path,
    format_name,
    list_codebooks,
    new_codebook,
    untrained,
)
from .vaes import CLIPS, FIRST, KEPT, check_vae, geometry_of, needed_vae
from .versions import hidden, node_ids, searched
from .video import StreamedVideo

__all__ = [
    "AUTO",
    "CLIPS",
    "cache_of",
    "check_name",
    "folder_state",
    "learn",
    "order_trained",
    "run_place",
    "training_device",
    "training_folder",
    "check_solver",
    "schedule_warning",
    "warn_of_positions",
    "warn_of_schedule",
    "FIRST",
    "KEPT",
    "DTYPES",
    "FarmProgress",
    "farm_store",
    "make_room",
    "temporary_path",
    "with_crew",
    "affine",
    "condition",
    "model_path",
    "output_path",
    "solver_name",
    "zeroed",
    "GRIDS",
    "Decoding",
    "HostSampler",
    "PlanProgress",
    "StreamedVideo",
    "begin_plan",
    "check_codebook",
    "check_treatment",
    "format_name",
    "untrained",
    "check_vae",
    "codebook_path",
    "list_codebooks",
    "new_codebook",
    "geometry_of",
    "needed_vae",
    "searched",
    "section_store",
    "check_locks",
    "say",
    "sound",
    "summary",
    "title_of",
    "apply_lora",
    "decoded",
    "describe",
    "find_model",
    "geometry",
    "guidance_with",
    "outside_noise",
    "list_models",
    "encoded_images",
    "find_file",
    "hidden",
    "node_ids",
    "is_framepack",
    "latent_format",
    "list_files",
    "load_model",
    "load_text_encoder",
    "on_page",
    "poll",
    "register_assets",
    "remember_sections",
    "resize",
    "serve_pictures",
    "sampler_named",
    "sampler_of",
    "show_frames",
    "video_index",
    "with_step_cache",
]
