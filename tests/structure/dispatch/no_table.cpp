// A unit that may not be linked: nobody could call it.
int no_table() { return 1; }
