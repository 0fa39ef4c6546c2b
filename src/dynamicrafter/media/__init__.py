"""Pictures and clips on their way in and out: read, orient, frame, encode.

Nothing here knows a network. Pixels are uint8 (h, w, 3) or (f, h, w, 3) in RGB, sizes are (height, width), and
whatever comes from a file is checked before it is believed.
"""
