"""The pack's nodes, in the host's V3 schema."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import host
from .aliases import free_aliases
from .cache import FramePackStepCache
from .decode import FramePackVAEDecode, FramePackVideo
from .drift import FramePackDrift
from .endpoints import FramePackEndpoint, FramePackKeyframe
from .frames import FramePackFrames, FramePackVAECheck
from .history import FramePackDiscretize, FramePackLearnCodebook, FramePackMethod, FramePackRepair
from .images import FramePackResolution, FramePackStill, FramePackVideoEncode
from .job import FramePackJob, FramePackSaveJob
from .lists import listed
from .live import NotYetError, live
from .loader import FramePackLoadModel, LoadFramePackTextEncoder
from .lora import FramePackLoraLoader
from .pack_history import PackHistory
from .parallel import FramePackFarm, FramePackParallel
from .planner import EndpointPlanner
from .pyramid import FramePackPyramid
from .sampler import SectionSampler
from .sampling import FramePackSigmas, FramePackSolver
from .search import findable
from .sections import FramePackGather, FramePackSections
from .several import FramePackStarts, FramePackVideos
from .store import FramePackStore
from .training import FramePackTrainLora
from .validation import checked

NODES: list[type[io.ComfyNode]] = [
    FramePackLoadModel,
    LoadFramePackTextEncoder,
    PackHistory,
    EndpointPlanner,
    SectionSampler,
    FramePackSections,
    FramePackGather,
    FramePackFrames,
    FramePackVAECheck,
    FramePackStarts,
    FramePackSaveJob,
    FramePackJob,
    FramePackVideos,
    FramePackVAEDecode,
    FramePackVideo,
    FramePackSigmas,
    FramePackSolver,
    FramePackPyramid,
    FramePackLoraLoader,
    FramePackStepCache,
    FramePackParallel,
    FramePackFarm,
    FramePackEndpoint,
    FramePackKeyframe,
    FramePackResolution,
    FramePackVideoEncode,
    FramePackStill,
    FramePackDrift,
    FramePackRepair,
    FramePackLearnCodebook,
    FramePackDiscretize,
    FramePackMethod,
    FramePackStore,
    FramePackTrainLora,
]


class FramePackExtension(ComfyExtension):
    """What the host loads."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Every node of the pack, and those under older ids that no other pack has taken; inputs are checked."""
        return [findable(listed(checked(node))) for node in (*NODES, *free_aliases())]


async def comfy_entrypoint() -> FramePackExtension:
    """The host's way in; lists the built-in model among the host's files first."""
    host.register_assets()
    host.serve_pictures(live, not_yet=NotYetError)
    return FramePackExtension()
