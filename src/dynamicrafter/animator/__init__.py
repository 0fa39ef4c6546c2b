"""What a user asks for, in a user's words: options, an animator that follows them, and the clip that comes back."""
