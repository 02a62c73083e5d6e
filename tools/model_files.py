"""The released models' files: where each is from, its folder, and how large it is."""

from __future__ import annotations

HUB = "https://huggingface.co"
I2V, F1 = "FramePackI2V_HY_fp8_e4m3fn.safetensors", "FramePack_F1_I2V_HY_20250503_fp8_e4m3fn.safetensors"
GGUF = "FramePackI2V_HY_Q4_0.gguf"  # made by the user: the page offers to download safetensors only
VAE, VISION = "hunyuan_video_vae_bf16.safetensors", "sigclip_vision_patch14_384.safetensors"
LLAMA, CLIP_L = "llava_llama3_fp8_scaled.safetensors", "clip_l.safetensors"
REPACKAGED = f"{HUB}/Comfy-Org/HunyuanVideo_repackaged/resolve/main/split_files"
# Where each file is from, its folder, and about how many GB it has.
FILES = {
    I2V: (f"{HUB}/Kijai/HunyuanVideo_comfy/resolve/main/{I2V}", "diffusion_models", 16.3),
    F1: (f"{HUB}/kabachuha/FramePack_F1_I2V_HY_20250503_comfy/resolve/main/{F1}", "diffusion_models", 16.3),
    VAE: (f"{REPACKAGED}/vae/{VAE}", "vae", 0.5),
    LLAMA: (f"{REPACKAGED}/text_encoders/{LLAMA}", "text_encoders", 9.1),
    CLIP_L: (f"{HUB}/comfyanonymous/flux_text_encoders/resolve/main/{CLIP_L}", "text_encoders", 0.25),
    VISION: (f"{HUB}/Comfy-Org/sigclip_vision_384/resolve/main/{VISION}", "clip_vision", 0.9),
}


def models_of(files: list[str]) -> str:
    """The part of a note that says which files a workflow needs, and where they go."""
    total = sum(FILES[name][2] for name in files)
    lines = [f"- [{name}]({FILES[name][0]}) in models/{FILES[name][1]}, {FILES[name][2]} GB" for name in files]
    return f"\n\n**Models**, {total:.0f} GB; ComfyUI offers to download what is missing:\n\n" + "\n".join(lines)
