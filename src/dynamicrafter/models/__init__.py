"""The networks that DynamiCrafter adds to its towers: plain modules on tensors.

They know no noise schedule, guidance, checkpoint or file. Inside, a video is one batch of pictures, (b·f, c, h, w) in
channels-last memory. In that layout the tokens of spatial attention (h·w of them), of temporal attention (f of them),
the 2-D convolutions and the temporal convolutions are all views of the same memory, so that nothing is copied on the
way between space and time.
"""
