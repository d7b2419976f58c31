int  x=1 ;
