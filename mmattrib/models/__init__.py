"""Models: encoders and backbones, and the toolkit for those who adapt one."""
