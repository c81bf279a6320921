"""Cases drawn at random: nothing that users, files or models come up with may end in a bare error or in a hang."""
