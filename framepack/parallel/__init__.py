"""A model in several processes that share each section: a crew, for programs beside them, such as ComfyUI."""
